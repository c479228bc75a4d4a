"""Contrastive alignment: two modalities are similar within an example, not across examples."""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.auxiliary.base import Gather, Sums, normalize_rows, pair_modalities, pool_pairs
from mmjax.fusion.pooling import Pooled
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.model import identity
from mmjax.types import Batch, Intermediates

_MAX_SCALE = 100.0


def info_nce(
    a: Float[Array, "b d"],
    b: Float[Array, "b d"],
    present_a: Bool[Array, " b"],
    present_b: Bool[Array, " b"],
    *,
    temperature: float | Float[Array, ""] = 0.07,
    gather: Gather = identity,
) -> Sums:
    """Sums InfoNCE over the examples that have both modalities, Σ_i ½(ℓ(a_i, b) + ℓ(b_i, a)).

    ℓ(q_i, k) = log Σ_j exp(s_ij) - s_ii with s_ij = cos(q_i, k_j) / τ, at least 0: the
    cross-entropy of finding the key of the same example among n. So log n - E ℓ is a lower bound of
    the mutual information, which cannot exceed log n. The keys come from all devices, the queries
    from this one.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020), figure 3; van den Oord et al. 2018
    (arXiv:1807.03748).

    Args:
      a: one modality's vectors, of any norm.
      b: the other's; row i of both is the same example.
      present_a: whether an example has the first modality.
      present_b: whether it has the second.
      temperature: τ, divides the cosines.
      gather: collects the batch axis from all devices.

    Returns:
      The sum, and the number of examples that have both.

    Example:
      >>> a, present = jnp.eye(3), jnp.ones(3, bool)
      >>> total, count = jax.jit(info_nce)(a, a, present, present, temperature=1.0)
      >>> print(f"{total / count:.3f}")  # ln(e + 2) - 1
      0.551
    """
    paired = present_a & present_b
    a = normalize_rows(jnp.where(paired[:, None], a, 0))
    b = normalize_rows(jnp.where(paired[:, None], b, 0))
    is_key = gather(paired)
    # s_ii, the cosine of an example's own pair, which the logits of both directions contain.
    positive = (a * b).sum(axis=1)

    def cross_entropy(queries: Array, keys: Array) -> Array:
        logits = precise_dot(queries, gather(keys).T) / temperature
        # exp(-1e30) is 0; -inf would give NaN if no example were a key.
        logits = jnp.where(is_key[None], logits, -1e30)
        return jax.nn.logsumexp(logits, axis=1) - positive / temperature

    # Both directions: a finds its b among all b, and b its a among all a.
    losses = (cross_entropy(a, b) + cross_entropy(b, a)) / 2
    # logsumexp is at least its own term; rounding can leave a difference just below 0.
    total = jnp.where(paired, jnp.maximum(losses, 0), 0).sum()
    return total, paired.sum().astype(jnp.float32)


def mix_neighbors(
    key: Key[Array, ""], vectors: Mapping[str, Pooled], alpha: float
) -> dict[str, Pooled]:
    """Mixes each example with its neighbor, by one share λ ~ Beta(α, α) for all its modalities.

    x ← λ x + (1 - λ) x' where x' is of the other example of the pairs (0, 1), (2, 3), ...; batches
    are in random order. An example whose neighbor lacks one of its modalities stays as it is, and
    so does the last of an odd number.

    Source: Vouitsis et al., "Data-efficient multimodal fusion on a single GPU", CVPR 2024
    (arXiv:2312.10144), section 4: FuseMix.

    Example:
      >>> x = Pooled(jnp.array([[0.0], [1.0]]), jnp.ones(2, bool))
      >>> mixed = mix_neighbors(jax.random.key(0), {"image": x, "text": x}, alpha=1.0)
      >>> bool((mixed["image"].values == mixed["text"].values).all())
      True
    """
    size = len(next(iter(vectors.values())).present)
    neighbor = jnp.arange(size) ^ 1
    neighbor = jnp.where(neighbor < size, neighbor, size - 1)
    share = jax.random.beta(key, alpha, alpha, (size,))
    for x in vectors.values():
        share = jnp.where(x.present & ~x.present[neighbor], 1.0, share)

    def mix(x: Pooled) -> Pooled:
        weight = share[:, None].astype(x.values.dtype)
        return x._replace(values=weight * x.values + (1 - weight) * x.values[neighbor])

    return {m: mix(x) for m, x in vectors.items()}


class InfoNCE(nn.Module):
    """CLIP's loss between the modalities: one linear projection each, then `info_nce` of each pair.

    The mean is over all pairs of modalities and all examples that have both. Modalities are taken
    as the mean of their tokens.

    Source: Radford et al., ICML 2021 (arXiv:2103.00020), section 2.3.

    Attributes:
      width: of the projections.
      temperature: initial τ, which divides the cosines.
      learned: whether τ is learned. A value below 1/100 counts as 1/100, but keeps its gradient, so
        that it can increase again.
      modalities: the aligned modalities; None is all.
      mix: α of `mix_neighbors`, which mixes the vectors while training; 0 does not. With frozen
        encoders this is FuseMix.

    Example:
      >>> import functools
      >>> from mmjax.types import Tokens
      >>> x = jax.random.normal(jax.random.key(0), (4, 1, 3))
      >>> tokens = Tokens(x, jnp.ones((4, 1), bool))
      >>> seen = Intermediates({"image": tokens, "text": tokens}, None, {}, {})
      >>> batch = Batch({}, {}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = InfoNCE(width=8)
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # examples
      4.0
    """

    width: int = 64
    temperature: float = 0.07
    learned: bool = True
    modalities: tuple[str, ...] | None = None
    mix: float = 0.0

    def __post_init__(self) -> None:
        if self.mix < 0:
            raise ValueError(f"InfoNCE.mix is {self.mix}; it must be positive, or 0 for none.")
        if not self.temperature > 0:
            raise ValueError(
                f"InfoNCE.temperature is {self.temperature}; it must be positive, such as 0.07."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns total and count over this device's examples and all pairs of modalities."""
        del predictions, batch
        couples = pair_modalities(self, seen, self.modalities)
        vectors = pool_pairs(seen, couples)
        if train and self.mix:
            vectors = mix_neighbors(self.make_rng("dropout"), vectors, self.mix)
        projected = {m: self.project(m, x.values) for m, x in vectors.items()}
        temperature, totals, counts = 1 / self.scale(), [], []
        for m, n in couples:
            present = vectors[m].present, vectors[n].present
            total, count = info_nce(
                projected[m], projected[n], *present, temperature=temperature, gather=gather
            )
            totals.append(total)
            counts.append(count)
        return jnp.stack(totals).sum(), jnp.stack(counts).sum()

    def project(self, modality: str, x: Float[Array, "b d"]) -> Float[Array, "b w"]:
        """Applies the linear map of a modality to the common space."""
        projected: Array = nn.Dense(self.width, use_bias=False, name=f"project_{modality}")(x)
        return projected

    def scale(self) -> Float[Array, ""]:
        """Returns 1/τ, at most 100."""
        initial, largest = -math.log(self.temperature), math.log(_MAX_SCALE)
        if not self.learned:
            return jnp.exp(jnp.asarray(initial))
        log: Array = self.param("log_scale", nn.initializers.constant(initial), ())
        # The value of the minimum with the gradient of `log`.
        return jnp.exp(log + jax.lax.stop_gradient(jnp.minimum(log, largest) - log))
