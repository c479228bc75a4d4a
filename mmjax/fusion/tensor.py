"""Fusion by the outer product of all modalities, in full or of low rank."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_modalities, project_modalities
from mmjax.types import Tokens


class Tensor(nn.Module):
    """⊗_m [1; W_m x_m + b_m], flattened: all products of entries, at most one per modality.

    A missing modality gives zeros, so the products of the others remain.

    Source: Zadeh et al., EMNLP 2017 (arXiv:1707.07250).

    Attributes:
      width: size to which each modality is projected; the result has (width + 1)^M entries.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Tensor(2).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 9)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b (width + 1)^M]."""
        del train
        first, *others = project_modalities(pool_modalities(tokens), self.width).values()
        product = _prepend_one(first.values)
        for x in others:
            factor = _prepend_one(x.values)
            # The outer product of [1; x_1] and [1; x_2], example by example, then with the next
            # modality.
            product = (product[:, :, None] * factor[:, None, :]).reshape(factor.shape[0], -1)
        return product


class LowRankTensor(nn.Module):
    """Σ_r ∏_m [1; x_m] F_m,r + b: a linear map of the outer product, of rank `rank`.

    A missing modality has x_m = 0, which leaves the learned constant in its factor.

    Source: Liu et al., ACL 2018 (arXiv:1806.00064). The authors' code sums the terms with learned
    weights; here the factors contain them.

    Attributes:
      width: size of the result.
      rank: number of terms.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = LowRankTensor(4, rank=3)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int
    rank: int = 4

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        factors = []
        for m, x in pool_modalities(tokens).items():
            # The bias is the row of F for the constant 1.
            layer = nn.Dense(
                self.rank * self.width, bias_init=nn.initializers.ones, name=f"factor_{m}"
            )
            factors.append(layer(x.values))
        # prod_m [1; x_m] F_m,r has an entry per rank r and output; the sum over r is the rank-R
        # tensor applied to the outer product, which is never formed.
        product = jnp.stack(factors).prod(axis=0).reshape(-1, self.rank, self.width)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return product.sum(axis=1) + bias.astype(product.dtype)[None]


def _prepend_one(x: Float[Array, "b d"]) -> Float[Array, "b e"]:
    """Returns [1; x]."""
    return jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=-1)
