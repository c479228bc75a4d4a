"""Writes `results.parquet`, which `mmjax.study.results` reads."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    metadata = {_DIGESTS_KEY: json.dumps(digests)}
    schema = _make_schema(axes, folds).with_metadata(metadata)
    # Reading the logs of all arms after each would take quadratic time in the number of arms.
    stored, row_groups = _find_known_rows(directory / RESULTS_FILE, digests, schema)
    with files.replace_atomically(directory / RESULTS_FILE) as draft:
        # One arm at a time, so that memory does not grow with their number.
        with pyarrow.parquet.ParquetWriter(draft, schema) as writer:
            for arm in digests:
                if arm in row_groups:
                    table = stored.read_row_group(row_groups[arm])
                else:
                    table = _read_arm_table(directory, arm, labels[arm], schema, folds)
                writer.write_table(table, row_group_size=max(len(table), 1))  # a single group
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


def _find_known_rows(
    path: Path, digests: Mapping[str, str], schema: Any
) -> tuple[Any, dict[str, int]]:
    """Finds the rows of arms whose results have not changed since the file was written.

    Returns:
      The open Parquet file, and {arm: its row group}; None and none if there is no such file, or
      it is damaged or has other columns.
    """
    import pyarrow.parquet

    checksum = path.with_name(CHECKSUM_FILE)
    exists = path.is_file() and checksum.is_file()
    if not exists or files.read_text(checksum).split()[:1] != [files.compute_sha256(path)]:
        return None, {}
    stored = pyarrow.parquet.ParquetFile(path)
    old = json.loads((stored.schema_arrow.metadata or {}).get(_DIGESTS_KEY.encode(), b"{}"))
    if stored.schema_arrow != schema or stored.num_row_groups != len(old):
        return None, {}
    return stored, {arm: i for i, arm in enumerate(old) if digests.get(arm) == old[arm]}


def _make_schema(axes: Sequence[str], folds: int) -> Any:
    """Returns the Arrow schema of the columns."""
    import pyarrow

    text, whole = pyarrow.string(), pyarrow.int64()
    types = (text, whole, text, whole, text, pyarrow.float64())
    columns = [*zip(RESULT_COLUMNS, types, strict=True)]
    if folds:
        columns.append(("fold", whole))
    return pyarrow.schema(columns + [(axis, text) for axis in axes])


def _read_arm_table(
    directory: Path, arm: str, labels: Mapping[str, str], schema: Any, folds: int
) -> Any:
    """Reads the numbers of a completed arm as an Arrow table."""
    import pyarrow

    rows: list[_Row] = []
    for fold, home in list_fold_homes(directory, arm, folds):
        rows += _read_arm_rows(arm, fold, home)
    columns, of_rows = [], (*RESULT_COLUMNS, *(["fold"] if folds else []))  # the others are axes
    for field in schema:
        values: list[Any]
        if field.name in of_rows:
            values = [getattr(row, field.name) for row in rows]
        else:
            values = [labels.get(field.name, "")] * len(rows)
        columns.append(pyarrow.array(values, field.type))
    return pyarrow.table(columns, schema=schema)


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
