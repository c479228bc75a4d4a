"""A separate linear layer for every feature of a vector."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mmjax.encoders.mlp import to_float


class PerFeatureDense(nn.Module):
    """Maps the numbers that encode each feature by weights of that feature.

    Attributes:
      width: numbers per feature of the output.

    Example:
      >>> import jax
      >>> x = jnp.zeros((2, 3, 5))
      >>> y, _ = PerFeatureDense(4).init_with_output(jax.random.key(0), x)
      >>> y.shape
      (2, 3, 4)
    """

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b d k"]) -> Float[Array, "b d o"]:
        """Maps [b d k] to [b d width]."""
        # Every feature has a matrix of its own, so the first axis does not count as inputs.
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("kernel", init, (*x.shape[1:], self.width))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[1], self.width))
        # One [k o] matrix per feature d, as one batched product.
        return jnp.einsum("bdk,dko->bdo", x, kernel.astype(x.dtype)) + bias.astype(x.dtype)[None]


def check_vectors(x: Num[Array, "b ..."], encoder: str) -> Float[Array, "b d"]:
    """Returns vectors as floats.

    Raises:
      ValueError: if the array is not [b d].
    """
    if x.ndim != 2:
        raise ValueError(
            f"{encoder} needs vectors of numbers [b d] but got shape {x.shape}; use another "
            "encoder for inputs that are not columns of a table."
        )
    return to_float(x)
