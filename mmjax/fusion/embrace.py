"""Fusion by drawing: every entry of the result comes from one modality."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import mean_of_present, pool_all, project_all
from mmjax.types import Tokens


class Embrace(nn.Module):
    """EmbraceNet: while training, each entry is drawn from one of the modalities present.

    All that are present are equally likely, entry by entry. At test the result is the mean over
    the draws, where the paper draws there too. Each modality is projected by Dense + ReLU.

    Source: Choi, Lee, Information Fusion 2019 (arXiv:1904.09078).

    Attributes:
      width: size of the result.
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]; draws with the key "dropout"."""
        docked = project_all(pool_all(tokens), self.width).values()
        values = nn.relu(jnp.stack([x.values for x in docked]))
        present = jnp.stack([x.present for x in docked])
        if not train:
            return mean_of_present(values, present)
        noise = jax.random.uniform(self.make_rng("dropout"), values.shape)
        chosen = jnp.where(present[:, :, None], noise, -1.0).argmax(axis=0)
        return jnp.take_along_axis(values, chosen[None], axis=0)[0]
