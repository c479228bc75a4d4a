"""Writes `results.parquet`, which `mmjax.study.results` reads."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import files
from mmjax.files.run_files import read_result_file
from mmjax.study.folds import list_fold_homes
from mmjax.study.results import CHECKSUM_FILE, RESULT_COLUMNS, RESULTS_FILE

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

    rows: list[_Row] = []
    for arm in labels:
        for fold, home in list_fold_homes(directory, arm, folds):
            rows += _read_arm_rows(arm, fold, home)
    types = [pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.int64()]
    types += [pyarrow.string(), pyarrow.float64()]
    columns: dict[str, Any] = {
        name: pyarrow.array([row[i] for row in rows], types[i])
        for i, name in enumerate(RESULT_COLUMNS)
    }
    if folds:
        columns["fold"] = pyarrow.array([row.fold for row in rows], pyarrow.int64())
    for axis in axes:
        if axis in columns:
            raise ValueError(
                f"the axis {axis!r} has the name of a column of {RESULTS_FILE}; rename it."
            )
        axis_labels = [labels[row.arm].get(axis, "") for row in rows]
        columns[axis] = pyarrow.array(axis_labels, pyarrow.string())
    with files.replace_atomically(directory / RESULTS_FILE) as draft:
        pyarrow.parquet.write_table(pyarrow.table(columns), draft)
        checksum = files.compute_sha256(draft)
    files.write_text(directory / CHECKSUM_FILE, f"{checksum}  {RESULTS_FILE}\n")


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
