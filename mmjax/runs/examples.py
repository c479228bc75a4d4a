"""Converts new examples, in any form that a trained model accepts, to batches."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mmjax.data.checks.array_checks import InvalidDataError
from mmjax.data.checks.validate_inputs import check_input
from mmjax.data.dataset import Dataset, Source, select_modalities_and_tasks
from mmjax.data.kinds import list_columns
from mmjax.data.load.arrays.npz import read_npz
from mmjax.data.load.new_rows import choose_columns, prepare_rows
from mmjax.data.load.tables.dialect import Dialect
from mmjax.data.load.tables.dialect_cells import blank_missing_cells, normalize_kinds
from mmjax.data.load.tables.table_files import Table, iterate_table
from mmjax.data.spec import Spec
from mmjax.types import Batch

TABLE_ENDINGS = (".csv", ".parquet", ".pq")


class ExampleBatch(NamedTuple):
    """Some examples.

    Attributes:
      batch: their inputs; targets only if they came as a `Batch` or a split.
      keys: {column: values} of the columns that the model does not read.
    """

    batch: Batch
    keys: Mapping[str, Sequence[Any]]


def iterate_examples(spec: Spec, examples: Any, size: int) -> Iterator[ExampleBatch]:
    """Yields the inputs of new examples, `size` at a time.

    Args:
      spec: what the model's data set learned; only its modalities are read.
      examples: a dictionary {column or modality: values}, a DataFrame of pandas or Polars, or the
        path of a .csv, .parquet or .npz file, all of which are prepared as the training split was;
        or a `Batch` or a split of a data set, which are prepared already.
      size: number of examples per batch.

    Raises:
      ValueError: if `examples` is empty, or one does not fit; the message names it.
    """
    if isinstance(examples, Dataset):
        raise ValueError(
            f"{examples.name} is a whole data set; give one of its splits, such as "
            "data.splits['test']."
        )
    if isinstance(examples, Batch):
        yield from _iterate_batch(spec, examples, size)
    # Arrays and DataFrames have a `take` of their own.
    elif isinstance(examples, Source) and not hasattr(examples, "shape"):
        yield from _iterate_source(spec, examples, size)
    else:
        yield from _iterate_rows(spec, examples, size)


def iterate_labeled_examples(spec: Spec, examples: Any, size: int) -> Iterator[Batch]:
    """Yields examples with the model's modalities and tasks, `size` at a time.

    Args:
      spec: the model's modalities and tasks.
      examples: a `Batch` with targets, or a split of a data set.
      size: number of examples per batch.

    Raises:
      ValueError: the examples lack a task, or do not fit the model.
    """
    for batch, _ in iterate_examples(spec, examples, size):
        missing = [task for task in spec.tasks if task not in batch.targets]
        if missing:
            raise ValueError(f"the examples have no targets of task {missing[0]!r}.")
        selected = select_modalities_and_tasks(batch, spec.modalities, spec.tasks)
        yield selected._replace(weights={})


def _iterate_batch(spec: Spec, batch: Batch, size: int) -> Iterator[ExampleBatch]:
    for start in range(0, batch.size, size):
        rows = slice(start, start + size)
        part = Batch(*({k: np.asarray(v)[rows] for k, v in part.items()} for part in batch))
        yield ExampleBatch(complete_batch(spec, part, f"examples from {start} on"), {})


def _iterate_source(spec: Spec, source: Source, size: int) -> Iterator[ExampleBatch]:
    for start in range(0, len(source), size):
        batch = source.take(np.arange(start, min(start + size, len(source))))
        yield ExampleBatch(complete_batch(spec, batch, f"examples from {start} on"), {})


def complete_batch(spec: Spec, batch: Batch, where: str) -> Batch:
    """Selects the model's modalities of a batch, and marks those that it lacks as missing.

    Raises:
      ValueError: beginning with `where`, if an input does not fit.
    """
    size = batch.size
    inputs, present, lengths = {}, {}, {}
    for m, modality in spec.modalities.items():
        known = m in batch.inputs
        dtype = spec.preparations[m].dtype
        inputs[m] = batch.inputs[m] if known else np.zeros((size, *modality.shape), dtype)
        present[m] = np.asarray(batch.present[m]) if known else np.zeros(size, bool)
        if m in batch.lengths:
            lengths[m] = batch.lengths[m]
        elif modality.sequence and not known:
            lengths[m] = np.zeros(size, np.int32)
    if not any(m in batch.inputs for m in spec.modalities):
        raise ValueError(
            f"{where}: the examples have no modality of the model ({', '.join(spec.modalities)}), "
            f"only {', '.join(batch.inputs) or 'none'}."
        )
    completed = batch._replace(inputs=inputs, present=present, lengths=lengths)
    try:
        for m, modality in spec.modalities.items():
            check_input(completed, m, modality)
    except InvalidDataError as error:
        raise ValueError(f"{where}: {error}") from None
    return completed


def _iterate_rows(spec: Spec, examples: Any, size: int) -> Iterator[ExampleBatch]:
    parts = _iterate_parts(spec, examples, size)
    first = next(parts)
    chosen = choose_columns(spec, first.columns)
    used = {name for columns in chosen.values() for name in columns or ()}
    used |= {p.lengths for p in spec.preparations.values() if p.lengths}
    for rows in itertools.chain([first], parts):
        keys = {name: values for name, values in rows.columns.items() if name not in used}
        yield ExampleBatch(prepare_rows(spec, rows, chosen), keys)


def _iterate_parts(spec: Spec, examples: Any, size: int) -> Iterator[Table]:
    path = Path("examples")  # the name that messages give to what is not a file
    if not isinstance(examples, str | Path):
        columns = convert_to_columns(examples)
    else:
        path = Path(examples).expanduser()
        if path.suffix in TABLE_ENDINGS:
            yield from _iterate_file(spec, path, size)
            return
        if path.suffix != ".npz":
            known = ", ".join([*TABLE_ENDINGS, ".npz"])
            raise ValueError(f"{path} is not a file of examples; its name must end in {known}.")
        columns = read_npz(path)
    for start in range(0, _count_rows(columns), size):
        part = {name: values[start : start + size] for name, values in columns.items()}
        yield Table(path, part, None, start)


def _iterate_file(spec: Spec, path: Path, size: int) -> Iterator[Table]:
    """Yields the rows of a table, whose CSV is in the dialect of the training data."""
    dialect = Dialect(**spec.table_options)
    kinds = [p.kind for p in spec.preparations.values() if p.kind is not None]
    used = set(list_columns(kinds))
    for rows in iterate_table(path, size, dialect=dialect):
        # A table is a tuple with a length of its own, so that `_replace` does not work.
        columns = {name: cells for name, cells in rows.columns.items() if name in used}
        known = Table(rows.path, columns, rows.lines, rows.start)
        blank_missing_cells(known, dialect)
        normalize_kinds(known, kinds, dialect)
        yield Table(rows.path, rows.columns | columns, rows.lines, rows.start)


def convert_to_columns(examples: Any) -> Mapping[str, Any]:
    """Converts a dictionary or a DataFrame to columns; missing cells of a DataFrame become None.

    Raises:
      ValueError: it is neither.

    Example:
      >>> import pandas as pd
      >>> convert_to_columns(pd.DataFrame({"a": ["x", None]}))
      {'a': ['x', None]}
    """
    if isinstance(examples, Mapping):
        return examples
    if hasattr(examples, "columns") and hasattr(examples, "notna"):  # pandas
        columns = {}
        for name in examples.columns:
            cells = examples[name].astype(object)
            columns[str(name)] = cells.where(examples[name].notna(), None).tolist()
        return columns
    if hasattr(examples, "columns") and hasattr(examples, "to_dict"):  # Polars
        return dict(examples.to_dict(as_series=False))
    raise ValueError(
        f"examples are of type {type(examples).__name__}; give a dictionary of arrays, a "
        "DataFrame, a path, a Batch or a split of a data set."
    )


def _count_rows(columns: Mapping[str, Any]) -> int:
    sizes = {}
    for name, values in columns.items():
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise ValueError(
                f"{name!r} is a {type(values).__name__}; it must be an array or a list with one "
                "value per example."
            )
        sizes[name] = len(values)
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the columns have several lengths: {sizes}.")
    if not sum(sizes.values()):
        raise ValueError("no examples were given.")
    return next(iter(sizes.values()))


def pad_batch(batch: Batch, size: int) -> Batch:
    """Pads a batch with copies of its last example."""
    extra = size - batch.size
    if not extra:
        return batch
    return jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], extra, axis=0)]), batch)
