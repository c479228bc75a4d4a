"""Selection of modalities and pairs, and losses over the whole batch, for several objectives."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.pooling import Pooled, pool
from mmjax.types import Branches, Intermediates

Sums = tuple[Float[Array, ""], Float[Array, ""]]
Gather = Callable[[Any], Any]
PairLoss = Callable[[Array, Array, Array, Array], Array]


def select_modalities(
    objective: Any, seen: Intermediates, modalities: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the given modalities, or all of them by default, sorted by name.

    Raises:
      ValueError: if the model has no such modality.
    """
    for m in modalities or ():
        if m not in seen.tokens:
            raise ValueError(
                f"{type(objective).__name__} names the modality {m!r}, but the model encodes only "
                f"{sorted(seen.tokens)}."
            )
    return tuple(sorted(set(modalities or seen.tokens)))


def pair_modalities(
    objective: Any, seen: Intermediates, modalities: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Returns all pairs of the selected modalities.

    Raises:
      ValueError: if there are fewer than two.
    """
    names = select_modalities(objective, seen, modalities)
    if len(names) < 2:
        raise ValueError(
            f"{type(objective).__name__} compares modalities with each other, but there is only "
            f"{names[0]!r}; give the model another encoder, or leave the objective out."
        )
    return list(itertools.combinations(names, 2))


def get_fused_vector(objective: Any, seen: Intermediates) -> Float[Array, "b d"]:
    """Returns the fused vector.

    Raises:
      ValueError: for late fusion, which makes predictions only.
    """
    if isinstance(seen.fused, Branches):
        raise ValueError(
            f"{type(objective).__name__} needs one fused vector per example, but late fusion makes "
            "one branch per modality; use another fusion."
        )
    fused: Array = seen.fused
    return fused


def pool_pairs(seen: Intermediates, pairs: Sequence[tuple[str, str]]) -> dict[str, Pooled]:
    """Returns each modality of the pairs as one vector per example."""
    return {m: pool(seen.tokens[m]) for m in sorted(set(itertools.chain(*pairs)))}


def check_equal_widths(
    objective: Any, vectors: dict[str, Pooled], pairs: Sequence[tuple[str, str]]
) -> None:
    """Raises ValueError unless the two modalities of every pair have vectors of the same width."""
    for a, b in pairs:
        width_a, width_b = vectors[a].values.shape[1], vectors[b].values.shape[1]
        if width_a != width_b:
            raise ValueError(
                f"{type(objective).__name__} compares vectors of one width, but {a!r} has width "
                f"{width_a} and {b!r} {width_b}; give their encoders the same width."
            )


def sum_pair_losses(
    loss: PairLoss,
    vectors: dict[str, Pooled],
    pairs: Sequence[tuple[str, str]],
    gather: Gather,
    *,
    together: bool,
) -> Sums:
    """Sums the losses of the pairs over the batch of all devices, and counts the pairs with a loss.

    Every device computes the same values. A pair has no loss if fewer than two examples have it.

    Args:
      loss: (a [b d], b [b e], present_a [b], present_b [b]) -> scalar.
      vectors: this device's part of the batch.
      pairs: of modalities.
      gather: collects the batch axis from all devices.
      together: whether the two examples must have both modalities at once, or may be different
        examples for each modality.
    """
    whole_batch = {m: Pooled(*map(gather, x)) for m, x in vectors.items()}
    losses, counts = [], []
    for m, n in pairs:
        a, b = whole_batch[m], whole_batch[n]
        both = a.present & b.present
        present = (both, both) if together else (a.present, b.present)
        # Statistics of a single example (covariances, distances between examples) do not exist.
        enough = (present[0].sum() >= 2) & (present[1].sum() >= 2)
        losses.append(jnp.where(enough, loss(a.values, b.values, *present), 0))
        counts.append(enough.astype(jnp.float32))
    return jnp.stack(losses).sum(), jnp.stack(counts).sum()


def center_present(
    x: Float[Array, "b d"], present: Bool[Array, " b"]
) -> tuple[Float[Array, "b d"], Float[Array, ""]]:
    """Returns the present rows minus their mean, with zeros for the others; and their number."""
    count = present.sum().astype(x.dtype)
    x = jnp.where(present[:, None], x, 0)
    mean = x.sum(axis=0) / jnp.maximum(count, 1)
    return jnp.where(present[:, None], x - mean[None], 0), count


def normalize_rows(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Divides every row by its Euclidean norm; a row of zeros does not change."""
    square = (x**2).sum(axis=-1, keepdims=True)
    # √0 has an infinite slope, so the square is made safe before the root.
    return x / jnp.sqrt(jnp.where(square > 0, square, 1))
