"""An encoder of every element of a sequence or bag, such as of several images."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import make_time_mask, mean_over_time
from mmjax.types import Tokens


class EachEncoder(nn.Module):
    """Encodes every element by one encoder, with the same parameters.

    Attributes:
      encoder: any encoder of a single element, such as `ConvEncoder` for images.
      pool: "mean" makes one token of the mean over the elements; "none" keeps the tokens of all.

    Example:
      >>> import functools, jax
      >>> from mmjax.encoders import MLPEncoder
      >>> bags, length = jnp.zeros((2, 5, 4, 4, 1)), jnp.array([5, 2])  # five images of 4 x 4
      >>> call = functools.partial(EachEncoder(MLPEncoder((8,))).init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), bags, length)
      >>> tokens.values.shape
      (2, 5, 8)
    """

    encoder: nn.Module
    pool: str = "none"

    def __post_init__(self) -> None:
        if self.pool not in ("mean", "none"):
            raise ValueError(f"EachEncoder.pool is {self.pool!r}; it must be 'mean' or 'none'.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b n ...] to the tokens of every element, or to one token.

        Raises:
          ValueError: if the elements are single numbers.
        """
        if x.ndim < 3:
            raise ValueError(
                f"EachEncoder needs elements with axes of their own [b n ...] but got {x.shape}; "
                "use an encoder of sequences or vectors."
            )
        b, n = x.shape[:2]
        mask = make_time_mask(x, length)
        x = jnp.where(jnp.expand_dims(mask, range(2, x.ndim)), x, jnp.zeros((), x.dtype))
        # All elements of all examples as one batch.
        values, valid = self.encoder(x.reshape(b * n, *x.shape[2:]), None, train=train)
        # Elements with several tokens put them one after the other.
        values = values.reshape(b, -1, values.shape[-1])
        mask = valid.reshape(b, n, -1) & mask[:, :, None]
        mask = mask.reshape(b, -1)
        if self.pool == "mean":
            return as_one_token(mean_over_time(values, mask))
        return Tokens(jnp.where(mask[:, :, None], values, jnp.zeros((), values.dtype)), mask)
