"""Data sets from tables whose columns are numbers, text, or paths to images and recordings."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target
from mmjax.data.limits import MAX_BYTES, MAX_CELL
from mmjax.data.load.load_table import load_table
from mmjax.data.load.split_rows import Split
from mmjax.data.load.stored.merge_surveys import ColumnPlan
from mmjax.data.load.stored.stream_table import Streaming, stream_table
from mmjax.data.load.stored.table_parts import CellFormat
from mmjax.data.load.table_options import TableOptions
from mmjax.data.load.tables.blank_rows import BlankRows
from mmjax.data.load.tables.dialect import DEFAULT_DIALECT, Dialect
from mmjax.deprecation import refuse_old_arguments

# Relative paths of a configuration become absolute where an annotation names `os.PathLike`. Lists
# in a dictionary do not: they may be cells.
_Paths = str | os.PathLike[str]


@refuse_old_arguments(standardise="standardize")
def from_table(
    table: _Paths | Sequence[_Paths] | Mapping[str, _Paths | Any] | Any,
    inputs: Mapping[str, str | Input],
    targets: Mapping[str, str | Target],
    *,
    weights: Mapping[str, str] | None = None,
    split: str | Mapping[str, float] | Split | None = None,
    seed: int = 0,
    name: str | None = None,
    in_memory: bool = True,
    standardize: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    blank_rows: BlankRows = "refuse",
    dialect: Dialect = DEFAULT_DIALECT,
    scan_cache: str | os.PathLike[str] | None = None,
    stream: Streaming | None = None,
    max_bytes: int = MAX_BYTES,
    max_cell: int = MAX_CELL,
) -> Dataset:
    """Makes a data set from CSV or Parquet files, DataFrames or columns of cells.

    An empty cell is missing. What is inferred is printed to standard error; see `docs/data.md`.

    Args:
      table: a file; several as a list, folder or pattern with "*"; a DataFrame of pandas, polars or
        PyArrow; {column: cells}; or {split: any of these}. Paths in its cells are relative to it.
      inputs: {modality: its column's kind, or the column alone, whose kind is inferred}.
      targets: {task: the same}; numbers that are not all whole are a `Value`, others a `Label`.
      weights: {task: column of its examples' weights}.
      split: a column that names each row's split, {split: share} or a `Split`; None: 0.8, 0.1, 0.1.
      seed: seed of the shares.
      name: name of the data set; None: that of the (training) file.
      in_memory: whether all examples are kept decoded; False reads files on demand.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: numbers and recordings, not pixels (which encoders divide by 255).
      skip_unreadable: whether examples with missing or damaged files are left out with a warning.
      blank_rows: whether rows without any input are refused, dropped or kept; see `BlankRows`.
      dialect: how CSV files are written.
      scan_cache: folder that keeps what the pass over all files finds, for in_memory=False.
      stream: how a table that is larger than memory is encoded on disk; `max_bytes` is not used.
      max_bytes: the largest size of a table's file, and of its cells after unpacking.
      max_cell: the largest cell, in bytes.

    Raises:
      ValueError: naming the file, the line or row, and the column of what is wrong.

    Example:
      >>> import contextlib, io
      >>> pets = {"weight": [i / 3 for i in range(100)], "kind": ["dog", "cat"] * 50}
      >>> with contextlib.redirect_stderr(io.StringIO()):  # the summary is printed there
      ...     data = from_table(pets, {"body": "weight"}, {"kind": "kind"}, name="pets")
      >>> data.name, data.modalities["body"].shape, data.tasks["kind"].classes
      ('pets', (1,), ('cat', 'dog'))
    """
    plan = ColumnPlan(inputs, targets, weights or {}, CellFormat(dialect, max_cell), blank_rows)
    options = TableOptions(plan, split, seed, name, standardize, skip_unreadable)
    options.check(in_memory, scan_cache, is_streamed=stream is not None)
    if stream is not None:
        return stream_table(table, options, stream)
    return load_table(table, options, in_memory, scan_cache, max_bytes)
