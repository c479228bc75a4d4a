"""Files of predictions: CSV, Parquet or JSON lines, written a few rows at a time."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.data.dataset import Task
from mmjax.experiment import Experiment
from mmjax.runs.best_params import read_best_params
from mmjax.runs.examples import iterate_examples
from mmjax.runs.predictions import Column
from mmjax.runs.trained import Trained, make_trained
from mmjax.types import Batch

WriteRows = Callable[[Sequence[Column]], None]


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
    if out.suffix not in _WRITERS:
        raise ValueError(f"{out} must end in {', '.join(_WRITERS)}.")
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
        trained = make_trained(experiment, read_best_params(directory, [seed]), [seed])
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


@contextlib.contextmanager
def open_table_writer(path: Path) -> Iterator[WriteRows]:
    """Yields a function that writes rows; the file appears, complete, when the block ends.

    All calls must give the same columns. If the block raises, the file stays as it was.
    """
    with files.replace_atomically(path) as draft, _WRITERS[path.suffix](draft) as write_columns:

        def write_rows(columns: Sequence[Column]) -> None:
            names = [column.name for column in columns]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(
                        f"the examples have a column {name!r}, which is that of a prediction; "
                        "rename it."
                    )
            write_columns(columns)

        yield write_rows


@contextlib.contextmanager
def _write_csv(path: Path) -> Iterator[WriteRows]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write_rows(columns: Sequence[Column]) -> None:
            if not file.tell():
                writer.writerow(column.name for column in columns)
            values = (map(_format_csv_cell, _list_values(column)) for column in columns)
            writer.writerows(zip(*values, strict=True))

        yield write_rows


@contextlib.contextmanager
def _write_json_lines(path: Path) -> Iterator[WriteRows]:
    with path.open("w", encoding="utf-8") as file:

        def write_rows(columns: Sequence[Column]) -> None:
            names = [column.name for column in columns]
            for row in zip(*map(_list_values, columns), strict=True):
                record = dict(zip(names, row, strict=True))
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

        yield write_rows


@contextlib.contextmanager
def _write_parquet(path: Path) -> Iterator[WriteRows]:
    pyarrow = _import_pyarrow()
    with contextlib.ExitStack() as stack:
        writers: list[Any] = []

        def write_rows(columns: Sequence[Column]) -> None:
            schema = writers[0].schema if writers else None
            arrays = {}
            for column in columns:
                kind = _make_arrow_type(column.kind) if column.kind is not None else None
                if schema is not None:
                    kind = schema.field(column.name).type
                arrays[column.name] = pyarrow.array(_list_values(column), kind)
            table = pyarrow.table(arrays)
            if not writers:
                writers.append(
                    stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema))
                )
            writers[0].write_table(table)

        yield write_rows


_WRITERS = {".csv": _write_csv, ".parquet": _write_parquet, ".jsonl": _write_json_lines}


def _read_key_types(data: Path) -> dict[str, Any]:
    """Returns the Arrow types of a Parquet file's columns; the cells of a CSV file are texts."""
    if data.suffix not in (".parquet", ".pq") or not data.is_file():
        return {}
    pyarrow = _import_pyarrow()
    try:
        return {field.name: field.type for field in pyarrow.parquet.read_schema(data)}
    except (pyarrow.ArrowException, OSError):
        return {}  # reading the rows tells what is wrong


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("Parquet needs pyarrow: pip install 'mmjax[table]'.") from error
    return pyarrow


def _make_arrow_type(kind: Any) -> Any:
    """Converts the kind of a column to an Arrow type, which it may be already."""
    pyarrow = _import_pyarrow()
    plain = {"string": pyarrow.string(), "float": pyarrow.float32(), "integer": pyarrow.int64()}
    if isinstance(kind, str):
        return plain[kind]
    if isinstance(kind, list):
        return pyarrow.list_(_make_arrow_type(kind[0]))
    if isinstance(kind, dict):
        return pyarrow.struct({name: _make_arrow_type(item) for name, item in kind.items()})
    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _nest(kind: Any, values: np.ndarray) -> Any:
    """Returns the kind of a column whose cells are arrays of that kind."""
    for _ in values.shape[1:]:
        kind = [kind]
    return kind


def _list_values(column: Column) -> list[Any]:
    """Lists the cells of a column as Python values; NaN is None."""
    values = column.values
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.ndim > 1 or values.dtype.kind != "f":
        return values.tolist()
    # The shortest text that stands for a float32 has fewer digits than that of its float64.
    return [None if x != x else float(str(x)) for x in values]


def _format_csv_cell(value: Any) -> Any:
    if isinstance(value, list | dict | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value


def count_rows(data: Path) -> int | None:
    """Returns the number of rows of a Parquet file; None if only reading it would tell."""
    if data.suffix not in (".parquet", ".pq") or not data.is_file():
        return None
    pyarrow = _import_pyarrow()
    with contextlib.suppress(pyarrow.ArrowException, OSError):
        return int(pyarrow.parquet.read_metadata(data).num_rows)
    return None
