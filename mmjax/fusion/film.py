"""Fusion by modulation: the other modalities scale and shift one of them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import concatenate_pooled, pool_modalities
from mmjax.types import Tokens


class FiLM(nn.Module):
    """γ(others) ⊙ W x + β(others), both affine; W x alone if all others are missing.

    Source: Perez et al., AAAI 2018 (arXiv:1709.07871), with 1 + Δγ as in its section 7.

    Attributes:
      width: size of the result.
      modulated: the modality that is scaled and shifted; None is the first by name.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = FiLM(4, modulated="text")
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int
    modulated: str | None = None

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width].

        Raises:
          ValueError: if `modulated` is not the name of a modality.
        """
        del train
        pooled = pool_modalities(tokens)
        name = min(pooled) if self.modulated is None else self.modulated
        if name not in pooled:
            raise ValueError(
                f"FiLM.modulated is {name!r}, but the modalities are {', '.join(pooled)}; "
                "name one of them, or None for the first."
            )
        main = pooled.pop(name)
        x = nn.Dense(self.width, name=f"project_{name}")(main.values)
        x = jnp.where(main.present[:, None], x, 0)
        if not pooled:
            return x
        others, has_other = concatenate_pooled(pooled)
        # γ = 1 + scale; section 7 of the paper.
        scale = nn.Dense(self.width, name="scale")(others)
        shift = nn.Dense(self.width, name="shift")(others)
        return x + jnp.where(has_other[:, None], scale * x + shift, 0)
