"""Contrastive alignment: the two modalities of one example are alike, those of two are not."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums, normalised, pairs, pooled
from mmjax.kernels.linear_algebra import dot
from mmjax.model import identity
from mmjax.types import Batch, Seen

SHARPEST = 100.0


def info_nce(
    a: Float[Array, "b d"],
    b: Float[Array, "b d"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " b"],
    *,
    temperature: float | Float[Array, ""] = 0.07,
    gather: Gather = identity,
) -> Sums:
    """Symmetric InfoNCE over the examples that have both: Σ_i ½(ℓ(a_i, b) + ℓ(b_i, a)), and n.

    ℓ(q_i, k) = log Σ_j exp(s_ij) - s_ii with s_ij = cos(q_i, k_j) / temperature, at least 0. The
    keys come from all devices, the queries from this one. The loss knows no more than log n.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020), figure 3; van den Oord et al. 2018
    (arXiv:1807.03748).

    Args:
      a: one modality's vectors, of any length.
      b: the other's, row by row of the same examples.
      present_a: whether an example has the one.
      present_b: whether it has the other.
      temperature: divides the cosines.
      gather: collects the batch axis from all devices.
    """
    paired = present_a & present_b
    a, b = (normalised(jnp.where(paired[:, None], x, 0)) for x in (a, b))
    everywhere = gather(paired)
    own = (a * b).sum(axis=1)

    def spread(queries: Array, keys: Array) -> Array:
        """How much the best matches among all keys outdo the own one."""
        logits = dot(queries, gather(keys).T) / temperature
        logits = jnp.where(everywhere[None], logits, -1e30)
        return jax.nn.logsumexp(logits, axis=1) - own / temperature

    each = (spread(a, b) + spread(b, a)) / 2
    total = jnp.where(paired, jnp.maximum(each, 0), 0).sum()
    return total, paired.sum().astype(jnp.float32)


class InfoNCE(nn.Module):
    """CLIP's loss between the modalities: a linear projection each, then `info_nce` of each pair.

    The mean is over all pairs of modalities and all examples that have both. Modalities are taken
    as the mean of their tokens.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020), section 2.3.

    Attributes:
      width: of the projections.
      temperature: what divides the cosines, at first.
      learned: whether the temperature is learned. One below 1/100 counts as 1/100; its gradient is
        then as if it did not, so that it can return.
      modalities: which are aligned; None is all.
    """

    width: int = 64
    temperature: float = 0.07
    learned: bool = True
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"InfoNCE.temperature is {self.temperature}; it must be positive, such as 0.07."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Total and count over this device's examples and all pairs of modalities."""
        del predictions, batch, train
        couples = pairs(self, seen, self.modalities)
        vectors = pooled(seen, couples)
        made = {
            m: nn.Dense(self.width, use_bias=False, name=f"project_{m}")(x.values)
            for m, x in vectors.items()
        }
        scale = self.scale()
        sums = [
            info_nce(
                made[m],
                made[n],
                vectors[m].present,
                vectors[n].present,
                temperature=1 / scale,
                gather=gather,
            )
            for m, n in couples
        ]
        totals, counts = zip(*sums, strict=True)
        return jnp.stack(totals).sum(), jnp.stack(counts).sum()

    def scale(self) -> Float[Array, ""]:
        """What multiplies the cosines, at most 100."""
        start, most = -math.log(self.temperature), math.log(SHARPEST)
        if not self.learned:
            return jnp.exp(jnp.asarray(start))
        log: Array = self.param("log_scale", nn.initializers.constant(start), ())
        return jnp.exp(log + jax.lax.stop_gradient(jnp.minimum(log, most) - log))
