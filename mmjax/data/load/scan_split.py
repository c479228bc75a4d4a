"""One pass over a split's examples, which may lie in files: what there is, and what is wrong."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.load.decode import UnreadableError
from mmjax.data.normalize import Moments, by_feature, merged, moments
from mmjax.data.progress_bars import tracked

CHUNK = 256  # examples in memory at once
MANY = 20_000  # examples that take long enough for a progress bar


class Example(NamedTuple):
    """One example as it is read.

    Attributes:
      inputs: {modality: array, or None if it is missing}; sequences have their own lengths.
      targets: {task: value, or None if there is no label}.
    """

    inputs: dict[str, np.ndarray | None]
    targets: dict[str, Any]


@runtime_checkable
class Examples(Protocol):
    """Random access to examples, decoded one by one."""

    def __len__(self) -> int: ...

    def fetch(self, rows: Sequence[int]) -> list[Example]:
        """The examples of those rows. An error names the place."""
        ...

    def place(self, row: int) -> str:
        """Where a row is, for a message."""
        ...


class Found(NamedTuple):
    """What a split has of one modality.

    Attributes:
      shape: of every example; of a sequence the longest's.
      kind: type of the numbers.
      place: where the first is.
      examples: how many have it.
      moments: of all values, if they were asked for.
    """

    shape: tuple[int, ...]
    kind: np.dtype
    place: str
    examples: int
    moments: Moments | None


@dataclasses.dataclass
class Scan:
    """What one pass found.

    Attributes:
      rows: those that can be read.
      skipped: why others cannot.
      inputs: the examples' inputs, if they were to be kept.
      targets: all targets as they were read, for each task.
      found: what there is of each modality.
      digests: of each example's inputs.
    """

    rows: list[int] = dataclasses.field(default_factory=list)
    skipped: list[str] = dataclasses.field(default_factory=list)
    inputs: list[dict[str, np.ndarray | None]] = dataclasses.field(default_factory=list)
    targets: dict[str, list[Any]] = dataclasses.field(default_factory=dict)
    found: dict[str, Found] = dataclasses.field(default_factory=dict)
    digests: list[bytes] = dataclasses.field(default_factory=list)


def scan(
    examples: Examples,
    *,
    sequences: Collection[str],
    keep: bool,
    skip_unreadable: bool,
    measured: Callable[[str, np.dtype], bool],
    title: str,
) -> Scan:
    """Reads all examples once.

    Args:
      examples: of a split.
      sequences: the modalities whose first axis is time.
      keep: whether the decoded inputs stay in memory.
      skip_unreadable: whether examples that cannot be read are left out and counted.
      measured: whether the statistics of a modality, by its name and type, are wanted.
      title: of the progress bar.

    Raises:
      ValueError: naming the place of what cannot be read, differs in shape from the first, or has
        no modality at all.
    """
    result = Scan()
    starts: Iterable[int] = range(0, len(examples), CHUNK)
    if len(examples) > MANY:
        starts = tracked(starts, title, -(-len(examples) // CHUNK))
    for start in starts:
        rows = range(start, min(start + CHUNK, len(examples)))
        chunk = list(_read(examples, rows, result.skipped if skip_unreadable else None))
        for row, example in chunk:
            _note(result, row, example, sequences, examples.place, keep)
        _measure(result, [example for _, example in chunk], sequences, measured)
    return result


def digest(inputs: Mapping[str, np.ndarray | None]) -> bytes:
    """A fingerprint of an example's inputs."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        value = inputs[name]
        state.update(b"-" if value is None else f"+{value.shape}".encode() + value.tobytes())
    return state.digest()


def _read(
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


def _note(
    result: Scan,
    row: int,
    example: Example,
    sequences: Collection[str],
    place: Callable[[int], str],
    keep: bool,
) -> None:
    if all(value is None for value in example.inputs.values()):
        raise ValueError(
            f"{place(row)} has none of the modalities {', '.join(sorted(example.inputs))}; every "
            "example needs at least one."
        )
    result.rows.append(row)
    result.digests.append(digest(example.inputs))
    for task, target in example.targets.items():
        result.targets.setdefault(task, []).append(target)
    for name, value in example.inputs.items():
        if value is not None:
            _check_finite(name, value, place, row)
            found = result.found.get(name)
            if found is None or found.shape != value.shape:
                here = Found(value.shape, value.dtype, place(row), 0, None)
                found = joined(name, found, here, name in sequences) if found else here
            result.found[name] = found._replace(examples=found.examples + 1)
    if keep:
        result.inputs.append(example.inputs)


def joined(name: str, a: Found, b: Found, sequence: bool) -> Found:
    """What two parts have together.

    Raises:
      ValueError: naming both places, if the shapes do not fit together.
    """
    start = 1 if sequence else 0
    if a.shape[start:] != b.shape[start:]:
        mend = " An `Image` with `size` and `channels` brings all to one." if start == 0 else ""
        raise ValueError(
            f"{b.place}: modality {name!r} has shape {b.shape}, but {a.shape} at {a.place}; all "
            f"must have one shape{', but for their length' if sequence else ''}.{mend}"
        )
    shape = (max(a.shape[0], b.shape[0]), *a.shape[1:]) if sequence else a.shape
    return a._replace(shape=shape, examples=a.examples + b.examples)


def _check_finite(name: str, value: np.ndarray, place: Callable[[int], str], row: int) -> None:
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        bad = value[~np.isfinite(value)][0]
        raise ValueError(f"{place(row)}: modality {name!r} has {bad}; every number must be finite.")


def _measure(
    result: Scan,
    examples: list[Example],
    sequences: Collection[str],
    measured: Callable[[str, np.dtype], bool],
) -> None:
    for name, found in result.found.items():
        values = [e.inputs[name] for e in examples]
        here = [v for v in values if v is not None]
        if here and measured(name, found.kind):
            spec = Modality(found.shape, name in sequences)
            now = moments(np.concatenate([by_feature(v, spec) for v in here]))
            before = found.moments
            total = merged(before, now) if before else now
            result.found[name] = found._replace(moments=total)
