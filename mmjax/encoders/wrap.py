"""Any Flax module as an encoder."""

import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import make_time_mask
from mmjax.types import Shape, Tokens


class Wrap(nn.Module):
    """Turns the output [b d] or [b n d] of any module into tokens.

    If its `__call__` has an argument `train`, `deterministic` or `length`, it gets whether this is
    training, the opposite, and the true lengths or None. Batch norms in it need no arguments; see
    `mmjax.layers.batch_norm`.

    Attributes:
      module: takes the modality's array unchanged, integer pixels and tokens too, and returns one
        vector per example, or one per time step.

    Example:
      >>> import functools, flax.linen as nn, jax, jax.numpy as jnp
      >>> encoder, x = Wrap(nn.Dense(8)), jnp.zeros((2, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)
    """

    module: nn.Module

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b ...] to tokens; with lengths, padding goes in as zeros and comes out masked.

        Raises:
          ValueError: if the module returns another shape.
        """
        if length is not None:
            # The module may mix time steps, so padding must be zero before it too.
            inside = jnp.expand_dims(make_time_mask(x, length), range(2, x.ndim))
            x = jnp.where(inside, x, jnp.zeros((), x.dtype))
        options = {"train": train, "deterministic": not train, "length": length}
        parameters = inspect.signature(type(self.module).__call__).parameters
        y = self.module(x, **{k: v for k, v in options.items() if k in parameters})
        return _as_tokens(y, x, length, type(self.module).__name__)


def _as_tokens(
    y: Any, x: Num[Array, "b ..."], length: Int[Array, " b"] | None, name: str
) -> Tokens:
    """Returns the output y of a module `name` as tokens; zeros for an example of length 0."""
    shape: Shape = getattr(y, "shape", ())
    if len(shape) not in (2, 3) or shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} made {shape or type(y).__name__} of {x.shape}; an encoder returns vectors "
            "[b d] or [b n d]."
        )
    if length is None:
        return as_one_token(y) if y.ndim == 2 else Tokens(y, jnp.ones(shape[:2], dtype=bool))
    if y.ndim == 2:
        return as_one_token(jnp.where((length > 0)[:, None], y, 0))
    if shape[1] != x.shape[1]:
        raise ValueError(
            f"{name} made {shape[1]} steps of {x.shape[1]}, so it is unknown which of them are "
            "padding; let it return as many as it gets, or one vector [b d]."
        )
    mask = make_time_mask(y, length)
    return Tokens(jnp.where(mask[:, :, None], y, 0), mask)
