"""Writes `results.parquet`, which `mmjax.study.results` reads."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.files.run_files import read_result_file
from mmjax.study.folds import list_fold_homes
from mmjax.study.results import CHECKSUM_FILE, RESULT_COLUMNS, RESULTS_FILE

_DIGESTS_KEY = "mmjax_results"  # of the file's metadata: {arm: digest of its results}
_LOGGER = logging.getLogger("mmjax")


class _Row(NamedTuple):
    """One number of a study; see `mmjax.study.results`."""

    arm: str
    seed: int
    split: str
    step: int
    metric: str
    value: float
    fold: int


def write_results(
    directory: Path,
    labels: Mapping[str, Mapping[str, str]],
    axes: Sequence[str],
    folds: int = 0,
) -> None:
    """Writes the numbers of all completed arms atomically.

    The file tells from which results it was made, and only those that changed are read again.

    Costs are those of one replica: its share of the costs of its program.

    Args:
      directory: the study's directory.
      labels: {arm: {axis: label}}.
      axes: the names of the axes.
      folds: number of folds of every arm; 0 if the study has none.

    Raises:
      ValueError: an axis has the name of a column.
    """
    import pyarrow
    import pyarrow.parquet

    for axis in axes:
        if axis in RESULT_COLUMNS or (folds and axis == "fold"):
            raise ValueError(
                f"the axis {axis!r} has the name of a column of {RESULTS_FILE}; rename it."
            )
    digests = _digest_results(directory, labels, folds)
    # Reading the logs of all arms after each would take quadratic time in the number of arms.
    stored, known = _read_known_rows(directory / RESULTS_FILE, digests, axes, folds)
    tables = [stored]
    for arm in labels:
        if arm in digests and arm not in known:
            rows: list[_Row] = []
            for fold, home in list_fold_homes(directory, arm, folds):
                rows += _read_arm_rows(arm, fold, home)
            tables.append(_make_table(rows, labels[arm], axes, folds))
    table = _sort_by_arm(pyarrow.concat_tables(tables), list(labels))
    metadata = {_DIGESTS_KEY: json.dumps(digests)}
    with files.replace_atomically(directory / RESULTS_FILE) as draft:
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), draft)
        checksum = files.compute_sha256(draft)
    files.write_text(directory / CHECKSUM_FILE, f"{checksum}  {RESULTS_FILE}\n")


def _digest_results(
    directory: Path, labels: Mapping[str, Mapping[str, str]], folds: int
) -> dict[str, str]:
    """Returns {completed arm: digest of the files `result.json` of its folds}."""
    digests = {}
    for arm in labels:
        paths = [home / "result.json" for _, home in list_fold_homes(directory, arm, folds)]
        done = [files.compute_sha256(path) for path in paths if path.exists()]
        if done:
            digests[arm] = " ".join(done)
    return digests


def _read_known_rows(
    path: Path, digests: Mapping[str, str], axes: Sequence[str], folds: int
) -> tuple[Any, set[str]]:
    """Reads the rows of arms whose results have not changed since the file was written.

    Returns:
      The rows, and the names of those arms; none if there is no such file, or it is damaged.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    empty = _make_table([], {}, axes, folds)
    checksum = path.with_name(CHECKSUM_FILE)
    exists = path.is_file() and checksum.is_file()
    if not exists or files.read_text(checksum).split()[:1] != [files.compute_sha256(path)]:
        return empty, set()
    table = pyarrow.parquet.read_table(path)
    old = json.loads((table.schema.metadata or {}).get(_DIGESTS_KEY.encode(), b"{}"))
    known = {arm for arm, digest in digests.items() if old.get(arm) == digest}
    if table.schema.remove_metadata() != empty.schema:
        return empty, set()
    names = pyarrow.array(sorted(known), pyarrow.string())
    rows = table.filter(pyarrow.compute.is_in(table["arm"], names))
    return rows.replace_schema_metadata(None), known


def _make_table(
    rows: Sequence[_Row], labels: Mapping[str, str], axes: Sequence[str], folds: int
) -> Any:
    """Makes the Arrow table of one arm's rows."""
    import pyarrow

    types = [pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.int64()]
    types += [pyarrow.string(), pyarrow.float64()]
    columns: dict[str, Any] = {}
    for i, name in enumerate(RESULT_COLUMNS):
        columns[name] = pyarrow.array([row[i] for row in rows], types[i])
    if folds:
        columns["fold"] = pyarrow.array([row.fold for row in rows], pyarrow.int64())
    for axis in axes:
        columns[axis] = pyarrow.array([labels.get(axis, "")] * len(rows), pyarrow.string())
    return pyarrow.table(columns)


def _sort_by_arm(table: Any, arms: Sequence[str]) -> Any:
    """Sorts rows by their arms, in the given order, and keeps the order within each arm."""
    import pyarrow
    import pyarrow.compute

    position = pyarrow.compute.index_in(table["arm"], pyarrow.array(arms, pyarrow.string()))
    return table.take(np.argsort(position.to_numpy(), kind="stable"))


class ThrottledWriter:
    """Calls a function again and again, but for at most a twentieth of the time.

    Args:
      write: the function.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write, self._due = write, 0.0

    def write_if_due(self) -> None:
        """Calls the function unless its last call was too short a time ago."""
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Calls the function."""
        begin = time.monotonic()
        self._write()
        end = time.monotonic()
        self._due = end + 19 * (end - begin)


def _read_arm_rows(arm: str, fold: int, home: Path) -> Iterator[_Row]:
    """Reads the numbers of one fold of an arm; none if it is not completed."""
    if not (home / "result.json").exists():
        return
    result = read_result_file(home / "result.json")
    for name, seed_result in result["seeds"].items():
        seed = int(name)
        path = home / f"metrics-seed{seed}.jsonl"
        log = files.read_log(path)
        for _, reason in log.damage:
            _LOGGER.warning("%s. The line is left out of the results.", reason)
        last_step = seed_result["steps"]
        if not log.damage and (not log.records or log.records[-1]["step"] != last_step):
            _LOGGER.warning("%s ends before step %d; lines are missing.", path, last_step)
        for record in log.records:
            step = record.pop("step")
            for metric, value in record.items():
                split, _, metric = metric.partition("/")
                yield _Row(arm, seed, split, step, metric, value, fold)
        # The test split is evaluated once, with the parameters of the best step.
        for metric, value in seed_result["test"].items():
            yield _Row(arm, seed, "test", seed_result["best_step"], metric, value, fold)
        for metric, value in _get_replica_costs(result).items():
            yield _Row(arm, seed, "cost", last_step, metric, value, fold)


def _get_replica_costs(result: Mapping[str, Any]) -> dict[str, float]:
    """Returns the costs of one replica of an arm."""
    names = ("flops", "step_seconds", "peak_bytes")
    return {
        "parameters": float(result["parameters"]["total"]),
        **{name: float(result["cost"][name]) for name in names},
        "seconds": result["cost"]["seconds"] / len(result["seeds"]),
    }
