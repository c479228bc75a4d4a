"""Scans a split: measures and checks its examples in one pass."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from mmjax.data.dataset import Modality
from mmjax.data.load.decode import UnreadableError
from mmjax.data.load.examples import Example, Examples
from mmjax.data.normalize import Moments, compute_moments, merge_moments, reshape_to_features
from mmjax.data.progress_bars import track_progress

_CHUNK_EXAMPLES = 256  # examples in memory at once
_PROGRESS_BAR_MIN_EXAMPLES = 20_000  # fewer examples are too fast for a progress bar


class ModalityStats(NamedTuple):
    """The statistics of one modality in a split.

    Attributes:
      shape: shape of every example; for a sequence, of the longest.
      dtype: type of the numbers.
      place: where the first example is.
      examples: number of examples that have it.
      moments: moments of all values, if they were asked for.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    place: str
    examples: int
    moments: Moments | None


class FileTargets(NamedTuple):
    """What is known about targets that are read from files whenever they are needed.

    Attributes:
      extremes: [n 2] the lowest and the highest class, or number, of each example; -1 if none.
      labeled: which examples have a target.
    """

    extremes: np.ndarray
    labeled: Bool[np.ndarray, " n"]


@dataclasses.dataclass
class SplitScan:
    """The result of one pass.

    Attributes:
      rows: the rows that can be read.
      skipped: for each other row, why it cannot be read.
      blank: the rows that are left out as they have no modality.
      inputs: the inputs of each example, if they are kept.
      targets: {task: all targets before encoding, or `FileTargets`}.
      stats: {modality: its statistics}.
      digests: the hash of the inputs of each example.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    blank: list[int] = dataclasses.field(default_factory=list)
    inputs: list[dict[str, np.ndarray | None]] = dataclasses.field(default_factory=list)
    targets: dict[str, Any] = dataclasses.field(default_factory=dict)
    stats: dict[str, ModalityStats] = dataclasses.field(default_factory=dict)
    digests: list[bytes] = dataclasses.field(default_factory=list)

    def count_examples(self) -> int:
        """Returns the number of examples that the pass has seen."""
        return len(self.rows) + len(self.skipped) + len(self.blank)


@runtime_checkable
class PassCache(Protocol):
    """Keeps the result of a pass, see `mmjax.data.load.scan_cache.ScanCache`."""

    def read(self) -> SplitScan:
        """Returns what an earlier pass has found so far."""
        ...

    def write(self, scan: SplitScan, *, is_complete: bool) -> None:
        """Keeps the result so far."""
        ...


def scan_split(
    examples: Examples,
    *,
    sequences: Collection[str],
    keep: bool,
    skip_unreadable: bool,
    drop_blank: bool = False,
    measured: Callable[[str, np.dtype], bool],
    title: str,
    cache: PassCache | None = None,
) -> SplitScan:
    """Reads all examples once.

    Args:
      examples: all examples of one split.
      sequences: the modalities whose first axis is padded.
      keep: whether the decoded inputs stay in memory.
      skip_unreadable: whether unreadable examples are left out and counted.
      drop_blank: whether examples without any modality are left out and counted.
      measured: decides by the name and the dtype of a modality whether its moments are computed.
      title: title of the progress bar.
      cache: what an earlier pass has found, and where this one is kept.

    Raises:
      ValueError: naming the place of an example that cannot be read, differs in shape from the
        first, or has no modality at all.
    """
    result = SplitScan() if cache is None else cache.read()
    starts: Any = range(result.count_examples(), len(examples), _CHUNK_EXAMPLES)
    if len(examples) > _PROGRESS_BAR_MIN_EXAMPLES:
        starts = track_progress(starts, title, len(starts))
    for start in starts:
        rows = range(start, min(start + _CHUNK_EXAMPLES, len(examples)))
        chunk = list(
            _read_readable_rows(examples, rows, result.skipped if skip_unreadable else None)
        )
        if drop_blank:
            result.blank += [row for row, example in chunk if _is_blank(example)]
            chunk = [(row, example) for row, example in chunk if not _is_blank(example)]
        for row, example in chunk:
            _record_example(result, row, example, sequences, examples.place, keep)
        _update_moments(result, [example for _, example in chunk], sequences, measured)
        if cache is not None:
            cache.write(result, is_complete=rows.stop == len(examples))
    return result


def _is_blank(example: Example) -> bool:
    return all(value is None for value in example.inputs.values())


def hash_inputs(inputs: Mapping[str, np.ndarray | None]) -> bytes:
    """Hashes the inputs of an example.

    Example:
      >>> hash_inputs({"x": np.zeros(2)}) == hash_inputs({"x": np.zeros((2, 1))})
      False
    """
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        value = inputs[name]
        # The shape counts too: the same bytes may stand for different arrays.
        state.update(b"-" if value is None else f"+{value.shape}".encode() + value.tobytes())
    return state.digest()


def _read_readable_rows(
    examples: Examples, rows: Sequence[int], skipped: list[str] | None
) -> Iterator[tuple[int, Example]]:
    if skipped is None:
        yield from zip(rows, examples.fetch(rows), strict=True)
        return
    for row in rows:
        try:
            yield row, examples.fetch([row])[0]
        except UnreadableError as error:
            skipped.append(str(error))


def _record_example(
    result: SplitScan,
    row: int,
    example: Example,
    sequences: Collection[str],
    place: Callable[[int], str],
    keep: bool,
) -> None:
    if _is_blank(example):
        raise ValueError(
            f"{place(row)} has none of the modalities {', '.join(sorted(example.inputs))}; every "
            "example needs at least one. Leave the row out; blank_rows='drop' does so."
        )
    result.rows.append(row)
    result.digests.append(hash_inputs(example.inputs))
    for task, target in example.targets.items():
        result.targets.setdefault(task, []).append(target)
    for name, value in example.inputs.items():
        if value is not None:
            _check_finite(name, value, place, row)
            stats = result.stats.get(name)
            if stats is None or stats.shape != value.shape:
                new = ModalityStats(value.shape, value.dtype, place(row), 0, None)
                stats = merge_modality_stats(name, stats, new, name in sequences) if stats else new
            result.stats[name] = stats._replace(examples=stats.examples + 1)
    if keep:  # sources that read on demand do not need the inputs
        result.inputs.append(example.inputs)


def merge_modality_stats(
    name: str, a: ModalityStats, b: ModalityStats, sequence: bool
) -> ModalityStats:
    """Merges the statistics of two parts; place, dtype and moments are those of the first.

    Raises:
      ValueError: naming both places, if the shapes do not fit together.
    """
    start = 1 if sequence else 0
    if a.shape[start:] != b.shape[start:]:
        is_image = start == 0 and len(a.shape) == 3
        fix = " Give an `Image` a size=(height, width) and channels." if is_image else ""
        raise ValueError(
            f"{b.place}: modality {name!r} has shape {b.shape}, but {a.shape} at {a.place}; all "
            f"must have one shape{', except for their length' if sequence else ''}.{fix}"
        )
    shape = (max(a.shape[0], b.shape[0]), *a.shape[1:]) if sequence else a.shape
    return a._replace(shape=shape, examples=a.examples + b.examples)


def _check_finite(name: str, value: np.ndarray, place: Callable[[int], str], row: int) -> None:
    if value.dtype.kind != "f":
        return
    if not np.isfinite(value).all():
        bad = value[~np.isfinite(value)][0]
        raise ValueError(f"{place(row)}: modality {name!r} has {bad}; every number must be finite.")
    if value.dtype.itemsize > 4 and np.abs(value).max() > np.finfo(np.float32).max:
        raise ValueError(
            f"{place(row)}: modality {name!r} has numbers beyond 32 bits, such as "
            f"{value[np.abs(value).argmax()] if value.ndim == 1 else np.abs(value).max()}; rescale "
            "them."
        )


def _update_moments(
    result: SplitScan,
    examples: list[Example],
    sequences: Collection[str],
    measured: Callable[[str, np.dtype], bool],
) -> None:
    """Adds the moments of some examples, which are merged to avoid a second pass."""
    for name, stats in result.stats.items():
        if not measured(name, stats.dtype):
            continue
        spec = Modality(stats.shape, name in sequences)
        values = [e.inputs[name] for e in examples]
        rows = [reshape_to_features(value, spec) for value in values if value is not None]
        if rows:
            new = compute_moments(np.concatenate(rows))
            total = merge_moments(stats.moments, new) if stats.moments else new
            result.stats[name] = stats._replace(moments=total)
