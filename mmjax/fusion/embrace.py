"""Fusion by sampling: every entry of the result comes from one modality."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import (
    mean_over_present,
    pool_modalities,
    project_modalities,
    stack_pooled,
)
from mmjax.types import Tokens


class Embrace(nn.Module):
    """EmbraceNet: while training, each entry comes from a random present modality.

    All present modalities are equally likely, independently per entry. At test the result is the
    mean over the draws; the paper draws at test too. Each modality is projected by Dense + ReLU.

    Source: Choi, Lee, Information Fusion 2019 (arXiv:1904.09078).

    Attributes:
      width: size of the result.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Embrace(4).init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; draws with the key "dropout"."""
        stacked, present = stack_pooled(project_modalities(pool_modalities(tokens), self.width))
        values = nn.relu(stacked)
        if not train:
            return mean_over_present(values, present)
        # Every entry gets a modality of its own: the paper's multinomial draw with equal
        # probabilities.
        noise = jax.random.uniform(self.make_rng("dropout"), values.shape)
        # The largest of independent uniform numbers is a uniform choice; -1 excludes the absent.
        chosen = jnp.where(present[:, :, None], noise, -1.0).argmax(axis=0)
        return jnp.take_along_axis(values, chosen[None], axis=0)[0]
