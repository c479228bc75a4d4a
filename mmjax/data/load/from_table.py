"""Data sets from tables whose columns are numbers, text, or paths to images and recordings."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target, Value, get_columns, list_columns
from mmjax.data.limits import MAX_BYTES, MAX_CELL
from mmjax.data.load.assemble import Reading, build_dataset
from mmjax.data.load.check_dataset import check_sizes, check_standardize_names
from mmjax.data.load.hints import note_columns
from mmjax.data.load.infer_kinds import TablePart, infer_input_kind, infer_target_kind
from mmjax.data.load.split_rows import Split, assign_rows
from mmjax.data.load.stored.merge_surveys import ColumnPlan
from mmjax.data.load.stored.stream_table import Streaming, TableOptions, stream_table
from mmjax.data.load.stored.table_parts import CellFormat
from mmjax.data.load.tables.blank_rows import (
    BlankRows,
    check_blank_rows,
    check_no_blank_rows,
    learn_blank_rows,
)
from mmjax.data.load.tables.dialect import DEFAULT_DIALECT, Dialect
from mmjax.data.load.tables.dialect_cells import (
    Gaps,
    blank_missing_cells,
    normalize_kinds,
    normalize_numbers,
)
from mmjax.data.load.tables.rows import Reader, TableRows
from mmjax.data.load.tables.sources import read_sources
from mmjax.data.load.tables.table_files import read_table
from mmjax.data.sampling.example_weights import check_weight_names, read_weight_cells
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

    An empty cell is a missing modality or label, or a gap if other columns of the same modality are
    filled. Whatever is inferred (kinds of columns, classes,
    vocabularies, sample rates, statistics) comes from the training split; shapes and lengths come
    from all splits. All files are read once to check them. A summary is printed to the standard
    error stream.

    Args:
      table: a CSV or Parquet file; several as a list, a folder or a pattern with "*", in the order
        of their names; a DataFrame of pandas, polars or PyArrow; {column: cells}; or {split: any of
        these}. Paths in the cells are relative to the folder of the file, or to the current folder.
      inputs: {modality: column}. The name of a column alone stands for `Numbers` if its cells are
        numbers or vectors, for `PointCloud` if they are lists of lists, for `Boolean` if they are
        true or false, for `DateTime` if they are ISO 8601 dates, for `Image`, `ImageBag` or `Audio`
        if they end as such files do, otherwise for `Text`.
      targets: {task: column}. The name of a column alone stands for `Value` if its cells are
        numbers and not all whole, otherwise for `Label`.
      weights: {task: column of its examples' weights}; see `mmjax.data.sampling.example_weights`.
      split: for one table: the column that names the split of each row, {split: share}, drawn by
        `seed`, or a `Split` that is stratified, by group, by time or one of several folds; None:
        0.8 train, 0.1 validation and 0.1 test.
      seed: seed of the shares.
      name: name of the data set; None: that of the (training) file.
      in_memory: whether all examples are kept decoded; False reads files on demand, so that they
        need not fit into memory.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: numbers and recordings, not pixels (which encoders divide by 255).
      skip_unreadable: whether examples with missing or damaged files are left out with a warning
        instead of refused.
      blank_rows: what to do with rows in which all inputs are empty: "refuse" them, "drop" them, or
        "keep" them as gaps of the only modality, which must be `Numbers`, `Boolean` or `Category`.
        Their number is printed.
      dialect: how CSV files are written: their separator, decimal sign, gaps and encoding.
      scan_cache: folder that keeps what the first pass over the files finds, for in_memory=False: a
        later start with the same cells and unchanged files (by size and time) does not repeat it,
        and one that was stopped continues it. None: the pass is made at every start.
      stream: for files that are larger than memory: `Streaming()` encodes the rows once into files
        of a cache on disk, by several processes, and reads batches from there. The data set is the
        same, except that means and deviations may differ in their last digits. A later start reads
        only the files that have changed. `max_bytes` does not apply.
      max_bytes: the largest size of the file of a table, and of its cells after unpacking. `Image`
        and `Audio` have limits of their own.
      max_cell: the largest cell, in bytes.

    Raises:
      FileNotFoundError: if there is no such table.
      ImportError: if a file needs a package that is not installed.
      ValueError: naming the file, the line or row, and the column of what is wrong.

    Example:
      >>> import contextlib, io, pathlib, tempfile
      >>> rows = [f"{i / 3},{'ab'[i % 2]}" for i in range(200)]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "pets.csv")
      ...     _ = path.write_text(os.linesep.join(["weight,kind", *rows]))
      ...     with contextlib.redirect_stderr(io.StringIO()):  # the summary is printed there
      ...         data = from_table(path, {"body": "weight"}, {"kind": "kind"})
      >>> data.name, data.modalities["body"].shape, data.tasks["kind"].classes
      ('pets', (1,), ('a', 'b'))
    """
    if not inputs or not targets:
        raise ValueError("inputs and targets each need at least one column.")
    check_standardize_names(standardize, inputs)
    weights = weights or {}
    check_weight_names(weights, targets)
    check_blank_rows(blank_rows)
    dialect.check()
    if scan_cache is not None and in_memory:
        raise ValueError("scan_cache is for in_memory=False; give that, or leave it out.")
    columns = set(list_columns([*inputs.values(), *targets.values(), *weights.values()]))
    if stream is not None:
        if scan_cache is not None or not in_memory:
            raise ValueError("stream has a cache of its own; leave in_memory and scan_cache out.")
        cells = CellFormat(dialect, max_cell)
        plan = ColumnPlan(inputs, targets, weights, cells, blank_rows)
        rule = _parse_split(split)
        options = TableOptions(plan, rule, seed, name, standardize, skip_unreadable)
        return stream_table(table, options, stream)
    drop_blank = blank_rows == "drop"
    reading = Reading(in_memory, standardize, skip_unreadable, drop_blank, scan_cache)
    read = functools.partial(read_table, dialect=dialect, max_bytes=max_bytes, max_cell=max_cell)
    parts, gaps = _read_parts(table, columns, split, seed, dialect, read)
    name = name or parts["train" if "train" in parts else next(iter(parts))][0].path.stem
    check_sizes(name, {s: len(rows) for s, (_, rows) in parts.items()})
    if blank_rows == "refuse":
        check_no_blank_rows(parts.values(), list_columns(inputs.values()), gaps)
    train = parts["train"]
    specs, goals = _infer_kinds(inputs, targets, train, dialect)
    numbers = map(Value, weights.values())
    _normalize_tables(parts, [*specs.values(), *goals.values(), *numbers], dialect)
    readers = {m: _make_reader(spec, train, blank_rows, len(specs)) for m, spec in specs.items()}
    data = build_dataset(
        name,
        {s: TableRows(part, rows, readers, goals) for s, (part, rows) in parts.items()},
        modalities={m: r.spec.declare_modality(r.learned) for m, r in readers.items()},
        kinds={m: (r.spec, r.learned) for m, r in readers.items()},
        tasks={t: spec.declare_task() for t, spec in goals.items()},
        reading=reading,
        weights={s: read_weight_cells(*part, weights) for s, part in parts.items()},
        facts={} if dialect == DEFAULT_DIALECT else {"table_options": dialect._asdict()},
    )
    given = [(m, s, specs[m]) for m, s in inputs.items()]
    note_columns(name, [*given, *((t, g, goals[t]) for t, g in targets.items())], train, gaps)
    return data


def _read_parts(
    table: Any,
    columns: set[str],
    split: str | Mapping[str, float] | Split | None,
    seed: int,
    dialect: Dialect,
    read: Any,
) -> tuple[dict[str, TablePart], list[Gaps]]:
    """Reads the rows of each split, and lists the cells that are spellings of a gap."""
    split = _parse_split(split)
    needed = columns | set(split.list_columns() if split else ())
    tables = read_sources(table, needed, read)
    if isinstance(tables, dict) and split is not None:
        raise ValueError("split is given, but the table is already one per split; leave it out.")
    wholes = list(tables.values()) if isinstance(tables, dict) else [tables]
    gaps = [Gaps(part, blank_missing_cells(part, dialect)) for part in wholes]
    if isinstance(tables, dict):
        return {s: (part, list(range(len(part)))) for s, part in tables.items()}, gaps
    split = split or Split()
    if split.time is not None:
        normalize_numbers(tables, [split.time], dialect, strict=False)
    rows_of = assign_rows(split, tables.columns, len(tables), seed, tables.place)
    return {s: (tables, rows) for s, rows in rows_of.items()}, gaps


def _parse_split(split: str | Mapping[str, float] | Split | None) -> Split | None:
    if isinstance(split, str):
        return Split(column=split)
    return split if isinstance(split, Split | None) else Split(tuple(split.items()))


def _infer_kinds(
    inputs: Mapping[str, str | Input],
    targets: Mapping[str, str | Target],
    train: TablePart,
    dialect: Dialect,
) -> tuple[dict[str, Input], dict[str, Target]]:
    """Infers the kinds of columns that are given by name only; returns all kinds."""
    specs: dict[str, Input] = {}
    for m, s in inputs.items():
        specs[m] = infer_input_kind(m, s, train, dialect) if isinstance(s, str) else s
    goals: dict[str, Target] = {}
    for t, g in targets.items():
        goals[t] = infer_target_kind(g, train, dialect) if isinstance(g, str) else g
    return specs, goals


def _normalize_tables(
    parts: Mapping[str, TablePart], kinds: Sequence[Input | Target], dialect: Dialect
) -> None:
    """Normalizes the cells of every table once, though several splits may be parts of it."""
    for table in {id(table): table for table, _ in parts.values()}.values():
        normalize_kinds(table, kinds, dialect)


def _make_reader(spec: Input, train: TablePart, blank_rows: BlankRows, modalities: int) -> Reader:
    """Makes the reader of a modality, with what the training split says about it."""
    table, rows = train
    columns = [[table.columns[name][row] for row in rows] for name in get_columns(spec)]
    if blank_rows == "keep":
        return Reader(spec, learn_blank_rows(spec, columns, modalities))
    filled = [cells for cells in zip(*columns, strict=True) if any(c is not None for c in cells)]
    columns = [[cells[i] for cells in filled] for i in range(len(columns))]
    return Reader(spec, spec.learn(columns, table.path.parent))
