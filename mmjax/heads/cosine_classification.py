"""A head whose logits are cosines: the length of features and weights does not count."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.heads.classification import Classification


class CosineClassification(Classification):
    """Logits `sharpness` cos(x, w_c), at least float32; no bias.

    Under `Late` fusion every modality has a head of its own, and the prediction is the mean of the
    modalities' cosines: no modality dominates by longer features or weights. That is MMCosine, up
    to the mean in place of the sum. Other arguments are those of `Classification`.

    Source: Xu et al., "MMCosine: Multi-modal cosine loss towards balanced audio-visual
    fine-grained learning", ICASSP 2023 (arXiv:2303.05338).

    Attributes:
      sharpness: the largest logit.

    Example:
      >>> import jax
      >>> head, x = CosineClassification(3), jnp.array([[3.0, 4.0]])
      >>> params = head.init(jax.random.key(0), x)
      >>> shorter, longer = head.apply(params, x), head.apply(params, 100 * x)
      >>> bool(jnp.allclose(shorter, longer, rtol=1e-5)) and bool((abs(longer) <= 10.001).all())
      True
    """

    sharpness: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sharpness > 0:
            raise ValueError(
                f"CosineClassification.sharpness is {self.sharpness}; it must be positive."
            )

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool = False) -> Float[Array, "b c"]:
        """Maps features [b d] to logits [b classes]."""
        for i, size in enumerate(self.hidden):
            x = nn.relu(nn.Dense(size, name=f"hidden_{i}")(x))
        shape = (x.shape[-1], self.classes)
        weights = self.param("directions", nn.initializers.lecun_normal(), shape)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return self.sharpness * _normalize(x, axis=-1) @ _normalize(weights.astype(x.dtype), axis=0)


def _normalize(x: Float[Array, "a b"], axis: int) -> Float[Array, "a b"]:
    """Divides by the Euclidean norm along an axis; zeros do not change."""
    square = (x**2).sum(axis=axis, keepdims=True)
    # √0 has an infinite slope, so the square is made safe before the root.
    return x / jnp.sqrt(jnp.where(square > 0, square, 1))
