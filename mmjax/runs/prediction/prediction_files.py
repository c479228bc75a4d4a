"""Files of predictions: CSV, Parquet or JSON lines, written a few rows at a time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.dataset import Task
from mmjax.data.load.tables.parquet_files import import_pyarrow
from mmjax.experiment import Experiment
from mmjax.runs.best_params import read_best_variables
from mmjax.runs.examples import iterate_examples
from mmjax.runs.prediction.predictions import Column
from mmjax.runs.prediction.table_writers import TABLE_WRITERS, open_table_writer
from mmjax.runs.trained import Trained, make_trained
from mmjax.types import Batch


def predict_file(
    trained: Trained,
    data: str | Path,
    out: str | Path,
    *,
    embeddings: bool = False,
    batch_size: int | None = None,
    overwrite: bool = False,
    advance: Callable[[int], object] = lambda rows: None,
) -> int:
    """Predicts on the rows of a file, and writes a file with one row per example.

    Columns that the model does not read are kept; those of predictions follow, a group per task.
    Rows are read and written `batch_size` at a time; `out` appears when it is complete.

    Args:
      trained: the model.
      data: a .csv, .parquet or .npz file; the arrays of the last are read whole.
      out: a .csv, .parquet or .jsonl file.
      embeddings: whether to add the input of each task's head, as a list; of one seed only.
      batch_size: examples per step; None: that of evaluation.
      overwrite: whether `out` may exist; it is replaced.
      advance: called with the number of rows of each step.

    Returns:
      The number of rows.

    Raises:
      ValueError: naming the row and the column of what does not fit. `out` is not written.
      FileExistsError: `out` exists, and `overwrite` is False.
    """
    data, out = Path(data).expanduser(), Path(out).expanduser()
    check_output_path(out, data, overwrite=overwrite)
    size, total = trained.batch_size if batch_size is None else batch_size, 0
    key_types = _read_key_types(data)
    with open_table_writer(out) as write_rows:
        for batch, keys in iterate_examples(trained.spec, data, size):
            columns = [Column(n, values, key_types.get(n)) for n, values in keys.items()]
            columns += trained.interpret_batch(batch, size).make_columns()
            if embeddings:
                tasks = trained.embed_batch(batch, size).tasks
                columns += [
                    Column(f"{t}/embedding", x, _nest("float", x)) for t, x in tasks.items()
                ]
            write_rows(columns)
            total += batch.size
            advance(batch.size)
    return total


def check_output_path(out: Path, data: Path, *, overwrite: bool) -> None:
    """Refuses a file to which predictions cannot be written.

    Raises:
      ValueError: its ending is unknown, its folder is missing, or it is the file of the examples.
      FileExistsError: it exists, and may not be replaced.
    """
    if out.suffix not in TABLE_WRITERS:
        raise ValueError(f"{out} must end in {', '.join(TABLE_WRITERS)}.")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"the folder of {out} does not exist.")
    if out.exists() and data.exists() and out.samefile(data):
        raise ValueError(f"{out} is the file of the examples; choose another one for predictions.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; add --overwrite (overwrite=True) to replace it.")


def write_test_predictions(experiment: Experiment, directory: Path, seeds: Sequence[int]) -> None:
    """Writes predictions-seedN.parquet of every seed of a finished arm, unless it exists.

    Its rows are the examples of the test split, by number; labels are beside the predictions.
    """
    test = experiment.data.splits["test"]
    for seed in seeds:
        path = directory / f"predictions-seed{seed}.parquet"
        if path.is_file():
            continue
        trained = make_trained(experiment, read_best_variables(directory, [seed]), [seed])
        start = 0
        with open_table_writer(path) as write_rows:
            for batch, _ in iterate_examples(trained.spec, test, trained.batch_size):
                numbers = np.arange(start, start + batch.size)
                columns = [Column("example", numbers, "integer")]
                for task, spec in trained.spec.tasks.items():
                    columns += _make_label_columns(task, spec, batch)
                write_rows(columns + trained.interpret_batch(batch).make_columns())
                start += batch.size


def _make_label_columns(task: str, spec: Task, batch: Batch) -> Iterator[Column]:
    """Yields the labels of a task that has one per example; empty where there is none."""
    targets, labeled = np.asarray(batch.targets[task]), np.asarray(batch.labeled[task])
    if targets.ndim > 1:
        return
    if spec.classes:
        names = [spec.classes[i] if y else None for i, y in zip(targets, labeled, strict=True)]
        yield Column(f"{task}/label", names, "string")
    else:
        yield Column(f"{task}/label", np.where(labeled, targets, np.float32(np.nan)), "float")


def _read_key_types(data: Path) -> dict[str, Any]:
    """Returns the Arrow types of a Parquet file's columns; the cells of a CSV file are texts."""
    if data.suffix not in (".parquet", ".pq") or not data.is_file():
        return {}
    pyarrow = import_pyarrow()
    try:
        return {field.name: field.type for field in pyarrow.parquet.read_schema(data)}
    except (pyarrow.ArrowException, OSError):
        return {}  # reading the rows tells what is wrong


def count_rows(data: Path) -> int | None:
    """Returns the number of rows of a Parquet file; None if counting would require reading it."""
    if data.suffix not in (".parquet", ".pq") or not data.is_file():
        return None
    pyarrow = import_pyarrow()
    with contextlib.suppress(pyarrow.ArrowException, OSError):
        return int(pyarrow.parquet.read_metadata(data).num_rows)
    return None


def _nest(kind: Any, values: np.ndarray) -> Any:
    """Returns the kind of a column whose cells are arrays of that kind."""
    for _ in values.shape[1:]:
        kind = [kind]
    return kind
