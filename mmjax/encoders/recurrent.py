"""Recurrent networks over sequences of different lengths."""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.recurrent_cells import Carry, Cell, lstm
from mmjax.encoders.sequence import check_sequence_shape, make_time_mask, mean_over_time
from mmjax.kernels.linear_algebra import loop_over_batch_on_cpu
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class RecurrentEncoder(nn.Module):
    """Stacked recurrent layers; padding has no effect on their result.

    Attributes:
      cell: `lstm()`, `gru()`, `elman()` or a `Cell` of your own.
      width: size of the state of one direction.
      layers: number of layers.
      bidirectional: adds to each layer one that reads from the end; outputs are concatenated.
      dropout: rate on the output of every layer, while training.
      output: "last" is the final state of each direction (n = 1), "mean" the mean over time
        (n = 1), "all" one token per time step.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, x = RecurrentEncoder(lstm(), width=8, bidirectional=True), jnp.zeros((2, 5, 3))
      >>> length = jnp.array([5, 2])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x, length)
      >>> tokens.values.shape
      (2, 1, 16)
    """

    cell: Cell = lstm()
    width: int = 64
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    output: Literal["last", "all", "mean"] = "last"

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Cell):
            raise ValueError(
                f"RecurrentEncoder.cell is {self.cell!r}; give it a Cell. If that is a function "
                "which makes one, call it, as in lstm()."
            )
        if self.output not in ("last", "all", "mean"):
            raise ValueError(
                f"RecurrentEncoder.output is {self.output!r}; use 'last', 'all' or 'mean'."
            )
        if self.layers < 1 or self.width < 1:
            raise ValueError(
                f"RecurrentEncoder has {self.layers} layers of width {self.width}; "
                "both must be at least 1."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps sequences [b time d] of true `length` (None: no padding) to tokens.

        A sequence of length 0 gives zeros.

        Raises:
          ValueError: if x is not [b time d].
        """
        check_sequence_shape(x.shape, "RecurrentEncoder")
        mask = make_time_mask(x, length)
        for i in range(self.layers):
            x, last = self.layer(i, x, mask)
            x = Dropout(self.dropout)(x, train=train)
        if self.output == "all":
            return Tokens(x, mask)
        if self.output == "mean":
            return as_one_token(mean_over_time(x, mask))
        return as_one_token(Dropout(self.dropout)(last, train=train))

    def layer(
        self, i: int, x: Num[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t w"], Float[Array, "b w"]]:
        """Returns outputs over time and final states of layer i, both directions side by side."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        results = [
            _RecurrentLayer(
                self.cell, self.width, reverse=name == "backward", name=f"layer_{i}_{name}"
            )(x, mask)
            for name in directions
        ]
        outputs, last = zip(*results, strict=True)
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(last, axis=-1)


class _RecurrentLayer(nn.Module):
    """One layer in one direction; `reverse` reads each sequence from its own end to its start."""

    cell: Cell
    width: int
    reverse: bool = False

    @nn.compact
    def __call__(
        self, x: Num[Array, "b t d"], mask: Bool[Array, "b t"]
    ) -> tuple[Float[Array, "b t w"], Float[Array, "b w"]]:
        """Returns the output at every time step (0 if masked) and the final state."""
        gates = len(self.cell.bias)
        shape = (x.shape[-1], gates * self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param(
            "bias", _make_gate_bias_initializer(self.cell.bias), (gates * self.width,)
        )
        recurrent_kernel = self.param(
            "recurrent_kernel", initialize_gates_orthogonally, (self.width, gates * self.width)
        )
        recurrent_bias = None
        if self.cell.recurrent_bias:
            recurrent_bias = self.param(
                "recurrent_bias", nn.initializers.zeros, (gates * self.width,)
            )
        x, kernel, bias, recurrent_kernel, recurrent_bias = nn.dtypes.promote_dtype(
            x, kernel, bias, recurrent_kernel, recurrent_bias
        )
        # One product of matrices for all time steps: with a third axis, XLA on CPU computes the
        # kernel's gradient 1.6 to 7 times slower.
        b, t, d = x.shape
        inputs = x.swapaxes(0, 1).reshape(t * b, d) @ kernel + bias[None]
        inputs = inputs.reshape(t, b, gates * self.width)

        def step(carry: Carry, inputs_and_mask: tuple[Array, Array]) -> tuple[Carry, Array]:
            inputs_t, mask_t = inputs_and_mask
            recurrent = carry[0] @ recurrent_kernel
            if recurrent_bias is not None:
                recurrent = recurrent + recurrent_bias[None]
            updated = self.cell.step(carry, inputs_t, recurrent)
            # Padding leaves the state, so that the final one is that of the last true step.
            carry = tuple(
                jnp.where(mask_t[:, None], a, b) for a, b in zip(updated, carry, strict=True)
            )
            return carry, carry[0]

        # All states begin with zeros; the carry's first array is the output.
        start = (jnp.zeros((b, self.width), inputs.dtype),) * self.cell.states
        over_time = (inputs, mask.T)
        carry, outputs = jax.lax.scan(step, start, over_time, reverse=self.reverse)
        return jnp.where(mask[:, :, None], outputs.swapaxes(0, 1), 0), carry[0]


def _make_gate_bias_initializer(values: tuple[float, ...]) -> Callable[..., Float[Array, " n"]]:
    """Returns an initializer that gives each gate its own constant."""

    def init(key: Key[Array, ""], shape: tuple[int], dtype: type = jnp.float32) -> Array:
        del key
        return jnp.repeat(jnp.array(values, dtype), shape[0] // len(values))

    return init


# Traced once per shape, since Flax calls initializers in every trace, and this one takes longest.
@functools.partial(jax.jit, static_argnames=("shape", "dtype"), inline=True)
def initialize_gates_orthogonally(
    key: Key[Array, ""], shape: tuple[int, int], dtype: type = jnp.float32
) -> Float[Array, "w n"]:
    """Initializes U with one orthogonal matrix per gate, side by side."""
    width, total = shape
    keys = jax.random.split(key, total // width)
    orthogonal = nn.initializers.orthogonal()
    # The orthogonal initializer takes a QR decomposition, which `vmap` must not batch on CPU.
    square = loop_over_batch_on_cpu(lambda k: orthogonal(k, (width, width), dtype))
    return jnp.concatenate(jax.vmap(square)(keys), axis=1)
