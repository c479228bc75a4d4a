"""The auxiliary losses of shared and specific features."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums
from mmjax.types import Batch, Intermediates


class ShaSpecLosses(nn.Module):
    """ShaSpec's losses: shared features are alike, and specific ones tell their modality.

    Per example α Σ mean |s_m - s_n| over the pairs of present modalities (distribution alignment),
    and β Σ_m of the cross-entropy of a linear classifier that tells m from p_m (domain
    classification) over the present ones, of the features that `fusion.ShaSpec` sows. The mean over
    examples with any modality; at least 0.

    Source: Wang et al., CVPR 2023 (arXiv:2307.14126), equations 2 to 4. The authors' code aligns
    neighbors in a cycle of the modalities only, and includes features of missing ones.

    Attributes:
      alignment: α.
      domain: β.

    Example:
      >>> import functools
      >>> s, p, present = jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.array([True, False])
      >>> features = {"image": (s, p, present), "text": (s, p, ~present)}
      >>> sown = {"fusion": {"shared_specific": features}}
      >>> seen, batch = Intermediates({}, None, {}, sown), Batch({}, {}, {}, {}, {})
      >>> objective, options = ShaSpecLosses(), {"train": False, "gather": lambda x: x}
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(jax.random.key(0), seen, {})
      >>> float(count)  # examples
      2.0
    """

    alignment: float = 0.1
    domain: float = 0.02

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
        """Returns the total over this device's examples with any modality, and their number."""
        del predictions, batch, train, gather
        features = _get_features(seen)
        losses = []
        for (a, _, has_a), (b, _, has_b) in itertools.combinations(features.values(), 2):
            distance = jnp.abs(a - b).mean(axis=1)
            losses.append(jnp.where(has_a & has_b, self.alignment * distance, 0))
        classify = nn.Dense(len(features), name="domain")
        for i, (_, specific, has) in enumerate(features.values()):
            cross_entropy = -jax.nn.log_softmax(classify(specific))[:, i]
            losses.append(jnp.where(has, self.domain * cross_entropy, 0))
        any_present = jnp.stack([has for _, _, has in features.values()]).any(axis=0)
        return jnp.stack(losses).sum(), any_present.sum().astype(jnp.float32)


def _get_features(seen: Intermediates) -> dict[str, tuple[Array, Array, Array]]:
    """Returns each modality's shared and specific features, and whether it is present.

    Raises:
      ValueError: if the fusion is not `fusion.ShaSpec`.
    """
    if "shared_specific" not in seen.sown["fusion"]:
        raise ValueError(
            "ShaSpecLosses needs shared and specific features; use fusion.ShaSpec as the "
            "model's fusion."
        )
    return dict(sorted(seen.sown["fusion"]["shared_specific"].items()))
