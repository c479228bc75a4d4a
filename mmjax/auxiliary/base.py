"""What several objectives need: which modalities, which pairs, the loss of a whole batch."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.pooling import Pooled, pool
from mmjax.types import Branches, Seen

Sums = tuple[Float[Array, ""], Float[Array, ""]]
Gather = Callable[[Any], Any]
PairLoss = Callable[[Array, Array, Array, Array], Array]


def chosen(objective: Any, seen: Seen, modalities: Sequence[str] | None) -> tuple[str, ...]:
    """The named modalities, all if none are named, in the order of their names.

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


def pairs(objective: Any, seen: Seen, modalities: Sequence[str] | None) -> list[tuple[str, str]]:
    """All pairs of the chosen modalities.

    Raises:
      ValueError: if there are fewer than two.
    """
    names = chosen(objective, seen, modalities)
    if len(names) < 2:
        raise ValueError(
            f"{type(objective).__name__} compares modalities with each other, but there is only "
            f"{names[0]!r}; give the model another encoder, or leave the objective out."
        )
    return list(itertools.combinations(names, 2))


def fused_vector(objective: Any, seen: Seen) -> Float[Array, "b d"]:
    """What the fusion makes of all modalities.

    Raises:
      ValueError: under late fusion, which makes predictions only.
    """
    if isinstance(seen.fused, Branches):
        raise ValueError(
            f"{type(objective).__name__} needs one fused vector an example, but late fusion makes "
            "a branch for each modality; use another fusion."
        )
    fused: Array = seen.fused
    return fused


def pooled(seen: Seen, pairs: Sequence[tuple[str, str]]) -> dict[str, Pooled]:
    """Each modality of the pairs as one vector an example."""
    return {m: pool(seen.tokens[m]) for m in sorted({m for pair in pairs for m in pair})}


def check_widths(
    objective: Any, vectors: dict[str, Pooled], pairs: Sequence[tuple[str, str]]
) -> None:
    """Raises ValueError unless the modalities of every pair have vectors of one width."""
    for a, b in pairs:
        wide, other = (vectors[m].values.shape[1] for m in (a, b))
        if wide != other:
            raise ValueError(
                f"{type(objective).__name__} compares vectors of one width, but {a!r} has width "
                f"{wide} and {b!r} {other}; give their encoders the same width."
            )


def of_whole_batch(
    loss: PairLoss,
    vectors: dict[str, Pooled],
    pairs: Sequence[tuple[str, str]],
    gather: Gather,
    *,
    together: bool,
) -> Sums:
    """The loss of each pair in the batch of all devices, summed, and how many pairs have one.

    It is computed on every device alike. A pair has none where fewer than two examples have it.

    Args:
      loss: (a [b d], b [b e], present_a [b], present_b [b]) -> scalar.
      vectors: this device's part.
      pairs: of modalities.
      gather: collects the batch axis from all devices.
      together: whether the examples must have both modalities, or enough of them have each.
    """
    everywhere = {m: Pooled(*map(gather, x)) for m, x in vectors.items()}
    losses, counts = [], []
    for m, n in pairs:
        a, b = everywhere[m], everywhere[n]
        both = a.present & b.present
        here = (both, both) if together else (a.present, b.present)
        enough = (here[0].sum() >= 2) & (here[1].sum() >= 2)
        losses.append(jnp.where(enough, loss(a.values, b.values, *here), 0))
        counts.append(enough.astype(jnp.float32))
    return jnp.stack(losses).sum(), jnp.stack(counts).sum()


def centred(
    x: Float[Array, "b d"], present: Bool[Array, " b"]
) -> tuple[Float[Array, "b d"], Float[Array, ""]]:
    """The present rows less their mean, zeros for the others; and how many they are."""
    count = present.sum().astype(x.dtype)
    x = jnp.where(present[:, None], x, 0)
    mean = x.sum(axis=0) / jnp.maximum(count, 1)
    return jnp.where(present[:, None], x - mean[None], 0), count


def normalised(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Every row divided by its length; a row of zeros stays."""
    square = (x**2).sum(axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square > 0, square, 1))
