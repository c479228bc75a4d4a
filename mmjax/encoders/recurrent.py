"""Recurrent networks over sequences of different lengths."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mmjax.dropout import Dropout
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, make_time_mask, mean_over_time
from mmjax.kernels.linear_algebra import loop_over_batch_on_cpu
from mmjax.types import Tokens

Carry = tuple[Array, ...]


class Cell(NamedTuple):
    """A recurrent cell: the update of one time step, given both matrix products.

    A new cell is one function, as a minimal gated unit with one gate:

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> def step(carry, inputs, recurrent):
      ...     f, g = jnp.split(inputs + recurrent, 2, axis=-1)
      ...     (h,) = carry
      ...     f = jax.nn.sigmoid(f)
      ...     return ((1 - f) * h + f * jnp.tanh(g),)
      >>> encoder = RecurrentEncoder(Cell(bias=(1.0, 0.0), states=1, step=step), width=8)
      >>> x = jnp.zeros((2, 5, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)

    Attributes:
      bias: initial bias of each gate; its length is the number of gates.
      states: number of arrays [b width] in the carry. They start at zero; the first is the output.
      step: (carry, inputs, recurrent) -> carry, where inputs = W x_t + b and
        recurrent = U h_{t-1} (+ c), both [b gates*width] with the gates side by side.
      recurrent_bias: whether `recurrent` has a bias c of its own (zeros at first).
    """

    bias: tuple[float, ...]
    states: int
    step: Callable[[Carry, Array, Array], Carry]
    recurrent_bias: bool = False


def elman(activation: Callable[[Array], Array] = jnp.tanh) -> Cell:
    """Makes the cell of the simple recurrent network: h_t = f(W x_t + U h_{t-1} + b).

    Source: Elman, "Finding structure in time", Cognitive Science 1990.

    Example:
      >>> RecurrentEncoder(elman(), width=8).cell.states
      1
    """

    def step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
        del carry
        return (activation(inputs + recurrent),)

    return Cell(bias=(0.0,), states=1, step=step)


def gru() -> Cell:
    """Makes the gated recurrent unit that applies its reset gate after the matrix product.

    r = σ(W_r x + U_r h + b_r), z = σ(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r (U_n h + c_n)),
    h' = (1 - z) n + z h: the variant of cuDNN and PyTorch, gates in the order r, z, n.

    Source: Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014
    (the first version of the preprint; the final one resets before the product).

    Example:
      >>> RecurrentEncoder(gru(), width=8, bidirectional=True).cell.recurrent_bias
      True
    """
    return Cell(bias=(0.0, 0.0, 0.0), states=1, step=_gru_step, recurrent_bias=True)


def _gru_step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
    (h,) = carry
    r, z, n = jnp.split(inputs, 3, axis=-1)
    ur, uz, un = jnp.split(recurrent, 3, axis=-1)
    r, z = jax.nn.sigmoid(r + ur), jax.nn.sigmoid(z + uz)
    n = jnp.tanh(n + r * un)
    return ((1 - z) * n + z * h,)


def lstm() -> Cell:
    """Makes the cell of long short-term memory: c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c').

    Gates in the order i, f, g, o, as in PyTorch. The forget gate's bias starts at 1, so that the
    cell remembers at first (Jozefowicz et al., ICML 2015).

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    Example:
      >>> RecurrentEncoder(lstm(), width=8).cell.bias
      (0.0, 1.0, 0.0, 0.0)
    """
    return Cell(bias=(0.0, 1.0, 0.0, 0.0), states=2, step=_lstm_step)


def _lstm_step(carry: Carry, inputs: Array, recurrent: Array) -> Carry:
    _, c = carry
    i, f, g, o = jnp.split(inputs + recurrent, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


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
    """One layer in one direction. `reverse` reads from each sequence's own end to its start."""

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
