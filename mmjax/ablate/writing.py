"""Writes `results.parquet`: what `mmjax.ablate.results` reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.ablate.arms import Arm
from mmjax.ablate.results import COLUMNS, FILE
from mmjax.train.writers import read_lines


class Row(NamedTuple):
    """One number; see `mmjax.ablate.results`."""

    arm: str
    seed: int
    split: str
    step: int
    metric: str
    value: float


def write(directory: Path, arms: Mapping[str, Arm], axes: Sequence[str]) -> None:
    """Writes the numbers of all arms that are done, in one move.

    The costs are a lane's: its share of those of the program that it ran in.

    Raises:
      ValueError: an axis has the name of a column.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [row for arm in arms for row in arm_rows(directory, arm)]
    types = [pyarrow.string(), pyarrow.int64(), pyarrow.string(), pyarrow.int64()]
    types += [pyarrow.string(), pyarrow.float64()]
    columns: dict[str, Any] = {
        name: pyarrow.array([row[i] for row in rows], types[i]) for i, name in enumerate(COLUMNS)
    }
    for axis in axes:
        if axis in columns:
            raise ValueError(f"an axis is called {axis!r}, as a column of {FILE}; rename it.")
        labels = [arms[row.arm].labels.get(axis, "") for row in rows]
        columns[axis] = pyarrow.array(labels, pyarrow.string())
    partial = directory / f"{FILE}.partial"
    pyarrow.parquet.write_table(pyarrow.table(columns), partial)
    partial.replace(directory / FILE)


def arm_rows(directory: Path, arm: str) -> Iterator[Row]:
    """The numbers of one arm; none where it is not done."""
    home = directory / "arms" / arm
    if not (home / "result.json").exists():
        return
    result = json.loads((home / "result.json").read_text())
    for name, one in result["seeds"].items():
        seed = int(name)
        for line in read_lines(home / f"metrics-seed{seed}.jsonl"):
            record = json.loads(line)
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
