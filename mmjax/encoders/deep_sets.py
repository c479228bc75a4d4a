"""An encoder of sets, invariant to the order of the elements."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import mask_padding, mean_over_time
from mmjax.kernels.max import max_over_axis
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class DeepSetsEncoder(nn.Module):
    """ρ(pool over elements of φ(element)), where φ and ρ are Dense + ReLU per width.

    Source: Zaheer et al., NeurIPS 2017 (arXiv:1703.06114), theorem 2.

    Attributes:
      each: widths of φ.
      together: widths of ρ.
      pool: "sum", as in the theorem, "mean" or "max" over the elements.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, sets = DeepSetsEncoder((8,), (4,)), jnp.zeros((2, 5, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), sets)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    each: tuple[int, ...] = (64, 64)
    together: tuple[int, ...] = (64,)
    pool: Literal["sum", "mean", "max"] = "sum"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.each or not self.together:
            raise ValueError(
                f"DeepSetsEncoder has each={self.each} and together={self.together}; "
                "give both at least one width."
            )
        if self.pool not in ("sum", "mean", "max"):
            raise ValueError(f"DeepSetsEncoder.pool is {self.pool!r}; use 'sum', 'mean' or 'max'.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps the first `length` elements (None: all) of sets [b n d] to one token.

        An empty set gives zeros.

        Raises:
          ValueError: if x is not [b n d].
        """
        _check_set_shape(x.shape)
        x, mask = mask_padding(x, length)
        # rho(pool_i phi(x_i)) with phi = `each` and rho = `together`, equal for every order of
        # elements.
        x = jnp.where(mask[:, :, None], self.layers("each", self.each, x, train=train), 0)
        # φ ends in ReLU, so the zeros of the padding never exceed the maximum of real elements.
        pooled = {
            "sum": x.sum(axis=1),
            "max": max_over_axis(x, 1),
            "mean": mean_over_time(x, mask),
        }[self.pool]
        pooled = self.layers("together", self.together, pooled, train=train)
        return as_one_token(jnp.where(mask.any(axis=1)[:, None], pooled, 0))

    def layers(
        self, name: str, widths: tuple[int, ...], x: Float[Array, "... d"], *, train: bool
    ) -> Float[Array, "... e"]:
        """Applies Dense + ReLU per width."""
        for i, width in enumerate(widths):
            x = nn.relu(nn.Dense(width, name=f"{name}_{i}")(x))
            x = Dropout(self.dropout)(x, train=train)
        return x


def _check_set_shape(shape: tuple[Any, ...]) -> None:
    """Raises ValueError unless a shape is that of sets [b n d]."""
    if len(shape) != 3:
        raise ValueError(
            f"DeepSetsEncoder needs sets [b n d] but got shape {shape}; "
            "give scalars a last axis of 1."
        )
