"""The rules of missingness: pure functions of a batch and of uniform random numbers."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.modality_dropout import Rates, get_rate
from mmjax.types import Batch

_DrawUniform = Callable[[str], Float[np.ndarray, " b"]]
MaskRule = Callable[[Batch, _DrawUniform], Batch]


def drop_at_random(modalities: Rates, labels: Rates, batch: Batch, draw: _DrawUniform) -> Batch:
    """Removes modalities and labels at given rates."""
    lost = {m: np.full(len(x), get_rate(modalities, m), float) for m, x in batch.present.items()}
    unlabeled = {t: np.full(len(x), get_rate(labels, t), float) for t, x in batch.labeled.items()}
    return _drop_at_rates(batch, lost, unlabeled, draw)


def drop_by_label(
    task: str,
    of_class: tuple[float, ...],
    modalities: tuple[str, ...],
    labels: tuple[str, ...],
    batch: Batch,
    draw: _DrawUniform,
) -> Batch:
    """Removes modalities and labels at the rate of each example's class."""
    labeled = batch.labeled[task]
    # Targets without a label may hold anything, so they must not be used as an index.
    classes = np.where(labeled, batch.targets[task], 0)
    rate = np.where(labeled, np.array(of_class)[classes], 0.0)
    zero = np.zeros_like(rate)
    lost = {m: rate if m in modalities else zero for m in batch.present}
    unlabeled = {t: rate if t in labels else zero for t in batch.labeled}
    return _drop_at_rates(batch, lost, unlabeled, draw)


def _drop_at_rates(
    batch: Batch,
    modalities: Mapping[str, Float[np.ndarray, " b"]],
    labels: Mapping[str, Float[np.ndarray, " b"]],
    draw: _DrawUniform,
) -> Batch:
    """Removes each modality and label at its example's rate, never the last modality."""
    with np.errstate(all="ignore"):
        # As in `drop_modalities`: scores below 1 are dropped, unless the largest one is among them.
        scores = {}
        for m, rate in modalities.items():
            scores[m] = np.where(rate > 0, draw(f"modality/{m}") / rate, np.inf)
    best = np.max([np.where(x, scores[m], 0.0) for m, x in batch.present.items()], axis=0)
    present = {m: x & (scores[m] >= np.minimum(best, 1.0)) for m, x in batch.present.items()}
    labeled = {t: x & (draw(f"label/{t}") >= labels[t]) for t, x in batch.labeled.items()}
    return batch._replace(present=present, labeled=labeled)


def keep_pattern(
    patterns: Sequence[tuple[str, ...]], shares: Sequence[float], batch: Batch, draw: _DrawUniform
) -> Batch:
    """Keeps the modalities of one pattern per example, among those that leave it at least one."""
    in_pattern = {m: np.array([m in names for names in patterns]) for m in batch.present}  # [p]
    is_possible = np.any(
        [x[:, None] & in_pattern[m][None] for m, x in batch.present.items()], axis=0
    )
    # Inverse transform sampling over the patterns that leave the example a modality.
    bounds = np.cumsum(is_possible * np.array(shares)[None], axis=1)  # [b p]
    chosen = _choose_pattern(bounds, draw("pattern"))
    has_pattern = bounds[:, -1] > 0
    present = {m: x & (in_pattern[m][chosen] | ~has_pattern) for m, x in batch.present.items()}
    return batch._replace(present=present)


def _choose_pattern(
    bounds: Float[np.ndarray, "b p"], draws: Float[np.ndarray, " b"]
) -> Int[np.ndarray, " b"]:
    """Chooses the first interval whose upper bound is above the draw; never an empty interval."""
    total = bounds[:, -1:]
    # `bounds == total` has an answer even if rounding lifts the scaled draw to the total.
    return np.argmax((bounds > draws[:, None] * total) | (bounds == total), axis=1)
