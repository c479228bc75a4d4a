"""Cache of the first pass over each split: it is not repeated, and resumes where it stopped."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.config import trust
from mmjax.data.describe.announce import announce_once
from mmjax.data.fingerprint import compute_fingerprint
from mmjax.data.load.examples import Examples
from mmjax.data.load.scan_split import ModalityStats, SplitScan
from mmjax.data.normalize import Moments

_VERSION = 1  # of the format and of what a pass measures
_SECONDS_BETWEEN_WRITES = 60.0


class ScanCache:
    """Stores the result and the progress of the pass over one split in a file.

    The name of the file is a digest of all that the result depends on: cells, kinds, settings, and
    the size and modification time of every file that the cells name. A damaged file is set aside,
    and the pass starts over. If targets are arrays, such as masks, nothing is stored.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        title: str,
        examples: Any,
        settings: Any,
        paths: Sequence[Path] = (),
    ):
        self._examples = len(examples)
        # All that the result depends on changes the file name, so no stale result is ever read.
        state = hashlib.sha256(f"{_VERSION} {settings!r} ".encode())
        state.update(compute_fingerprint(examples).encode())
        # Sizes and times rather than contents: hashing the files would take as long as the pass.
        named = examples.files() if hasattr(examples, "files") else ()
        for path in [*paths, *named]:
            state.update(_describe_file(path))
        self._path = Path(folder).expanduser() / f"scan-{state.hexdigest()[:32]}.json"
        self._title = title
        # A stored run of somebody else does not choose where files are written.
        self._is_used = trust.may_prepare_data()
        self._last_write = time.monotonic()

    def read(self) -> SplitScan:
        """Returns what an earlier pass has found so far; an empty result if there was none."""
        if not self._is_used or not self._path.is_file():
            return SplitScan()
        try:
            stored = files.read_json(self._path)
            with files.name_damaged_file(self._path):
                scan = _parse_scan(stored)
        except files.DamagedFileError:
            files.set_aside_damaged(self._path)
            return SplitScan()
        count = scan.count_examples()
        announce_once(f"{self._title}: {count:,} of {self._examples:,} examples are in the cache")
        return scan

    def write(self, scan: SplitScan, *, is_complete: bool) -> None:
        """Writes the result so far, if it is complete or a minute has passed."""
        is_due = is_complete or time.monotonic() - self._last_write > _SECONDS_BETWEEN_WRITES
        if not self._is_used or not is_due:
            return
        try:
            converted = _convert_scan(scan)
        except TypeError:  # a target that is an array
            self._is_used = False
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self._path, converted)
        self._last_write = time.monotonic()


def _describe_file(path: Path) -> bytes:
    try:
        status = os.stat(path)
    except OSError:
        # A file that appears later must change the digest.
        return b"missing;"
    return f"{status.st_size} {status.st_mtime_ns};".encode()


def _convert_scan(scan: SplitScan) -> dict[str, Any]:
    """Converts a result, without inputs, to JSON."""
    return {
        "rows": scan.rows,
        "skipped": scan.skipped,
        "blank": scan.blank,
        "targets": {t: [convert_target(v) for v in vs] for t, vs in scan.targets.items()},
        "stats": convert_stats(scan.stats),
        "digests": b"".join(scan.digests).hex(),
    }


def convert_stats(stats: Mapping[str, ModalityStats]) -> dict[str, Any]:
    """Converts the statistics of modalities to JSON; `parse_stats` returns them."""
    converted = {}
    for name, s in stats.items():
        moments = s.moments and {k: _convert_array(v) for k, v in s.moments._asdict().items()}
        converted[name] = {**s._asdict(), "dtype": str(s.dtype), "moments": moments}
    return converted


def _convert_array(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def convert_target(value: Any) -> Any:
    """Converts a target to JSON; a set becomes a dictionary of one entry.

    Raises:
      TypeError: it is an array.
    """
    if isinstance(value, set | frozenset):
        return {"set": sorted(value)}
    if isinstance(value, list):
        return [convert_target(item) for item in value]
    # Only types that JSON restores; `np.float64`, a subclass of float, would come back as one.
    if value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"a target is a {type(value).__name__}")
    return value


def _parse_scan(stored: Mapping[str, Any]) -> SplitScan:
    """Returns the result that `_convert_scan` converted."""
    # Digests of 16 bytes each, without separators.
    digests = bytes.fromhex(stored["digests"])
    scan = SplitScan(
        rows=stored["rows"],
        skipped=stored["skipped"],
        blank=stored["blank"],
        targets={t: [parse_target(v) for v in vs] for t, vs in stored["targets"].items()},
        stats=parse_stats(stored["stats"]),
        digests=[digests[i : i + 16] for i in range(0, len(digests), 16)],
    )
    # Every list has one entry per example that was read.
    sizes = {len(scan.rows), len(scan.digests), *map(len, scan.targets.values())}
    if len(sizes) > 1:
        raise ValueError(f"its lists have several lengths: {sorted(sizes)}")
    return scan


def parse_stats(stored: Mapping[str, Any]) -> dict[str, ModalityStats]:
    """Returns the statistics that `convert_stats` converted."""
    stats = {}
    for name, s in stored.items():
        moments = s["moments"]
        if moments is not None:
            moments = Moments(
                moments["number"],
                np.array(moments["mean"], np.float64),
                np.array(moments["squares"], np.float64),
                moments["resolution"],
            )
        shape, dtype = tuple(s["shape"]), np.dtype(s["dtype"])
        stats[name] = ModalityStats(shape, dtype, s["place"], s["examples"], moments)
    return stats


def parse_target(value: Any) -> Any:
    """Returns the target that `convert_target` converted."""
    if isinstance(value, dict):
        return frozenset(value["set"])
    return [parse_target(item) for item in value] if isinstance(value, list) else value


def make_scan_cache(
    folder: str | os.PathLike[str] | None,
    title: str,
    examples: Examples,
    settings: Any,
    paths: Sequence[Path] = (),
) -> ScanCache | None:
    """Makes the cache of a split; None without a folder.

    Args:
      folder: where results are kept.
      title: name of the data set and the split, for what is printed.
      examples: the examples of the split.
      settings: what else the result depends on.
      paths: files that the result depends on, beside those that the examples name.
    """
    return None if folder is None else ScanCache(folder, title, examples, settings, paths)
