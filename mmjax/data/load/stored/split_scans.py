"""Merges what was found in parts of a split."""

from collections.abc import Mapping

from mmjax.data.dataset import Modality
from mmjax.data.load.scan_split import ModalityStats, SplitScan, merge_modality_stats
from mmjax.data.normalize import merge_moments


def merge_scan_stats(total: SplitScan, part: SplitScan, modalities: Mapping[str, Modality]) -> None:
    """Adds the statistics, the skipped and the blank rows of a part to those of the rows before it.

    Raises:
      ValueError: naming both places, if the shapes do not fit together.
    """
    total.skipped += part.skipped
    total.blank += part.blank
    for name, new in part.stats.items():
        old = total.stats.get(name)
        total.stats[name] = new if old is None else _merge(name, old, new, modalities[name])


def _merge(name: str, a: ModalityStats, b: ModalityStats, modality: Modality) -> ModalityStats:
    merged = merge_modality_stats(name, a, b, modality.sequence)
    if a.moments is None or b.moments is None:
        return merged._replace(moments=a.moments or b.moments)
    return merged._replace(moments=merge_moments(a.moments, b.moments))
