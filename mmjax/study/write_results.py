"""Writes `results.parquet`: what `mmjax.study.results` reads."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax import files
from mmjax.runs.run_files import read_result
from mmjax.study.results import CHECKSUM, COLUMNS, FILE

LOGGER = logging.getLogger("mmjax")


class Row(NamedTuple):
    """One number; see `mmjax.study.results`."""

    arm: str
    seed: int
    split: str
    step: int
    metric: str
    value: float


def write(directory: Path, labels: Mapping[str, Mapping[str, str]], axes: Sequence[str]) -> None:
    """Writes the numbers of all arms that are done, in one move.

    The costs are a lane's: its share of those of the program that it ran in.

    Args:
      directory: the study's directory.
      labels: {arm: {axis: its label there}}.
      axes: the names of the axes.

    Raises:
      ValueError: an axis has the name of a column.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [row for arm in labels for row in arm_rows(directory, arm)]
    types = [pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.int64()]
    types += [pyarrow.string(), pyarrow.float64()]
    columns: dict[str, Any] = {
        name: pyarrow.array([row[i] for row in rows], types[i]) for i, name in enumerate(COLUMNS)
    }
    for axis in axes:
        if axis in columns:
            raise ValueError(f"an axis is called {axis!r}, as a column of {FILE}; rename it.")
        places = [labels[row.arm].get(axis, "") for row in rows]
        columns[axis] = pyarrow.array(places, pyarrow.string())
    with files.replacing(directory / FILE) as draft:
        pyarrow.parquet.write_table(pyarrow.table(columns), draft)
        checksum = files.checksum_file(draft)
    files.write_text(directory / CHECKSUM, f"{checksum}  {FILE}\n")


def arm_rows(directory: Path, arm: str) -> Iterator[Row]:
    """The numbers of one arm; none where it is not done."""
    home = directory / "arms" / arm
    if not (home / "result.json").exists():
        return
    result = read_result(home / "result.json")
    for name, one in result["seeds"].items():
        seed = int(name)
        path = home / f"metrics-seed{seed}.jsonl"
        log = files.read_log(path)
        for reason in [reason for _, reason in log.damage]:
            LOGGER.warning("%s. The results go on without it.", reason)
        if not log.damage and (not log.records or log.records[-1]["step"] != one["steps"]):
            LOGGER.warning("%s does not reach step %d; lines are missing.", path, one["steps"])
        for record in log.records:
            step = record.pop("step")
            for metric, value in record.items():
                split, _, metric = metric.partition("/")
                yield Row(arm, seed, split, step, metric, value)
        for metric, value in one["test"].items():
            yield Row(arm, seed, "test", one["best_step"], metric, value)
        for metric, value in costs(result).items():
            yield Row(arm, seed, "cost", one["steps"], metric, value)


def costs(result: Mapping[str, Any]) -> dict[str, float]:
    """What one lane of an arm costs."""
    names = ("flops", "step_seconds", "peak_bytes")
    return {
        "parameters": float(result["parameters"]["total"]),
        **{name: float(result["cost"][name]) for name in names},
        "seconds": result["cost"]["seconds"] / len(result["seeds"]),
    }
