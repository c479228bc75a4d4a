"""Data sets of tables that are read into memory as a whole, though not the files that they name."""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target, Value, list_columns
from mmjax.data.load.assemble import Reading, build_dataset
from mmjax.data.load.check_dataset import check_sizes
from mmjax.data.load.hints import note_columns
from mmjax.data.load.infer_kinds import TablePart, infer_input_kind, infer_target_kind
from mmjax.data.load.split_rows import Split, assign_rows
from mmjax.data.load.stored.merge_surveys import ColumnPlan
from mmjax.data.load.table_options import TableOptions
from mmjax.data.load.tables.blank_rows import (
    BlankRows,
    check_no_blank_rows,
    learn_blank_rows,
    list_cells,
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
from mmjax.data.sampling.example_weights import read_weight_cells


def load_table(
    table: Any,
    options: TableOptions,
    in_memory: bool,
    scan_cache: str | os.PathLike[str] | None,
    max_bytes: int,
) -> Dataset:
    """Makes a data set of a table; the arguments are those of `from_table`."""
    plan, name, (dialect, max_cell) = options.columns, options.name, options.columns.cells
    drops = plan.blank_rows == "drop"
    reading = Reading(in_memory, options.standardize, options.skip_unreadable, drops, scan_cache)
    read = functools.partial(read_table, dialect=dialect, max_bytes=max_bytes, max_cell=max_cell)
    parts, gaps = _read_parts(table, options, read)
    name = name or parts["train" if "train" in parts else next(iter(parts))][0].path.stem
    check_sizes(name, {s: len(rows) for s, (_, rows) in parts.items()})
    if plan.blank_rows == "refuse":
        check_no_blank_rows(parts.values(), list_columns(plan.inputs.values()), gaps)
    train = parts["train"]
    specs, goals = _infer_kinds(plan, train)
    numbers = map(Value, plan.weights.values())
    _normalize_tables(parts, [*specs.values(), *goals.values(), *numbers], dialect)
    readers = {m: _make_reader(s, train, plan.blank_rows, len(specs)) for m, s in specs.items()}
    data = build_dataset(
        name,
        {s: TableRows(part, rows, readers, goals) for s, (part, rows) in parts.items()},
        modalities={m: r.spec.declare_modality(r.learned) for m, r in readers.items()},
        kinds={m: (r.spec, r.learned) for m, r in readers.items()},
        tasks={t: spec.declare_task() for t, spec in goals.items()},
        reading=reading,
        weights={s: read_weight_cells(*part, plan.weights) for s, part in parts.items()},
        facts={} if dialect == DEFAULT_DIALECT else {"table_options": dialect._asdict()},
    )
    given = [(m, s, specs[m]) for m, s in plan.inputs.items()]
    note_columns(name, [*given, *((t, g, goals[t]) for t, g in plan.targets.items())], train, gaps)
    return data


def _read_parts(
    table: Any,
    options: TableOptions,
    read: Any,
) -> tuple[dict[str, TablePart], list[Gaps]]:
    """Reads the rows of each split, and lists the cells that are spellings of a gap."""
    split, dialect = options.get_split(), options.columns.cells.dialect
    needed = {*options.columns.list_columns(), *(split.list_columns() if split else ())}
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
    rows_of = assign_rows(split, tables.columns, len(tables), options.seed, tables.place)
    return {s: (tables, rows) for s, rows in rows_of.items()}, gaps


def _infer_kinds(plan: ColumnPlan, train: TablePart) -> tuple[dict[str, Input], dict[str, Target]]:
    """Infers the kinds of columns that are given by name only; returns all kinds."""
    specs: dict[str, Input] = {}
    for m, s in plan.inputs.items():
        specs[m] = infer_input_kind(m, s, train, plan.cells.dialect) if isinstance(s, str) else s
    goals: dict[str, Target] = {}
    for t, g in plan.targets.items():
        goals[t] = infer_target_kind(g, train, plan.cells.dialect) if isinstance(g, str) else g
    return specs, goals


def _normalize_tables(
    parts: Mapping[str, TablePart], kinds: Sequence[Input | Target], dialect: Dialect
) -> None:
    """Normalizes the cells of every table once, though several splits may be parts of it."""
    for table in {id(table): table for table, _ in parts.values()}.values():
        normalize_kinds(table, kinds, dialect)


def _make_reader(spec: Input, train: TablePart, blank_rows: BlankRows, modalities: int) -> Reader:
    """Makes the reader of a modality, with what the training split says about it."""
    columns = list_cells(spec, train, blank_rows)
    if blank_rows == "keep":
        return Reader(spec, learn_blank_rows(spec, columns, modalities))
    return Reader(spec, spec.learn(columns, train[0].path.parent))
