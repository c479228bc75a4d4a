"""Data sets from tables whose columns are numbers, text, or paths to images and recordings."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import (
    INPUT_KINDS,
    TARGET_KINDS,
    Input,
    Label,
    Target,
    Text,
    Value,
    get_columns,
    list_columns,
)
from mmjax.data.limits import MAX_BYTES, MAX_CELL
from mmjax.data.load.assemble import build_dataset, check_sizes, check_standardize_names
from mmjax.data.load.split_rows import Split, assign_rows
from mmjax.data.load.table_files import Table, is_number, read_table
from mmjax.data.load.table_rows import Reader, TableRows

_MAX_ODD_CELLS = 0.1  # share of cells of another kind that are taken for errors


def from_table(
    table: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    inputs: Mapping[str, str | Input],
    targets: Mapping[str, str | Target],
    *,
    split: str | Mapping[str, float] | Split | None = None,
    seed: int = 0,
    name: str | None = None,
    in_memory: bool = True,
    standardise: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    max_bytes: int = MAX_BYTES,
    max_cell: int = MAX_CELL,
) -> Dataset:
    """Makes a data set from CSV or Parquet files.

    An empty cell is a missing modality or label, or a gap if other columns of the same modality are
    filled. Whatever is inferred (kinds of columns, classes,
    vocabularies, sample rates, statistics) comes from the training split; shapes and lengths come
    from all splits. All files are read once to check them. A summary is printed to the standard
    error stream.

    Args:
      table: one file, or {split: file}.
      inputs: {modality: column}. The name of a column alone stands for `Numbers` if its cells are
        numbers or vectors, for `PointCloud` if they are lists of lists, for `Boolean` if they are
        true or false, for `DateTime` if they are ISO 8601 dates, for `Image`, `ImageBag` or `Audio`
        if they end as such files do, otherwise for `Text`.
      targets: {task: column}. The name of a column alone stands for `Value` if its cells are
        numbers and not all whole, otherwise for `Label`.
      split: for one file: the column that names the split of each row, {split: share}, drawn by
        `seed`, or a `Split` that is stratified, by group, by time or one of several folds; None:
        0.8 train, 0.1 validation and 0.1 test.
      seed: seed of the shares.
      name: name of the data set; None: that of the (training) file.
      in_memory: whether all examples are kept decoded; False reads files on demand, so that they
        need not fit into memory.
      standardise: modalities that get mean 0 and standard deviation 1 over the training split;
        None: numbers and recordings, not pixels (which encoders divide by 255).
      skip_unreadable: whether examples with missing or damaged files are left out with a warning
        instead of refused.
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
    check_standardize_names(standardise, inputs)
    columns = set(list_columns([*inputs.values(), *targets.values()]))
    read = functools.partial(read_table, max_bytes=max_bytes, max_cell=max_cell)
    parts = _split_rows(table, columns, split, seed, read)
    check_sizes(name or "The table", {s: len(rows) for s, (_, rows) in parts.items()})
    train = parts["train"]
    specs = {
        m: s if not isinstance(s, str) else _infer_input_kind(m, s, train)
        for m, s in inputs.items()
    }
    labels = {
        t: s if not isinstance(s, str) else _infer_target_kind(s, train) for t, s in targets.items()
    }
    readers = {m: _make_reader(spec, train) for m, spec in specs.items()}
    return build_dataset(
        name or train[0].path.stem,
        {s: TableRows(part, rows, readers, labels) for s, (part, rows) in parts.items()},
        modalities={m: r.spec.declare_modality(r.learned) for m, r in readers.items()},
        kinds={m: (r.spec, r.learned) for m, r in readers.items()},
        tasks={t: spec.declare_task() for t, spec in labels.items()},
        in_memory=in_memory,
        standardise=standardise,
        skip_unreadable=skip_unreadable,
    )


_Part = tuple[Table, list[int]]


def _split_rows(
    table: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    columns: set[str],
    split: str | Mapping[str, float] | Split | None,
    seed: int,
    read: Callable[..., Table],
) -> dict[str, _Part]:
    if isinstance(table, Mapping):
        if split is not None:
            raise ValueError(
                "split is given, but the table is already one file per split; leave it out."
            )
        tables = {s: read(path, columns) for s, path in table.items()}
        return {s: (part, list(range(len(part)))) for s, part in tables.items()}
    if isinstance(split, str):
        split = Split(column=split)
    elif not isinstance(split, Split):
        split = Split() if split is None else Split(tuple(split.items()))
    whole = read(table, columns | set(split.list_columns()))
    rows_of = assign_rows(split, whole.columns, len(whole), seed, whole.place)
    return {s: (whole, rows) for s, rows in rows_of.items()}


def _list_filled_cells(column: str, part: _Part) -> list[object]:
    """Lists the cells of a column that are not empty."""
    table, rows = part
    return [c for row in rows if (c := table.columns[column][row]) is not None]


def _infer_input_kind(modality: str, column: str, train: _Part) -> Input:
    cells = _list_filled_cells(column, train)
    if not cells:
        raise ValueError(
            f"{train[0].path}: column {column!r} of modality {modality!r} is empty in the training "
            "split."
        )
    kind = next(kind for kind in INPUT_KINDS if kind.matches_cells(cells))
    if kind is Text:
        _check_no_odd_cells(modality, column, train)
    return kind(column)


def _check_no_odd_cells(modality: str, column: str, train: _Part) -> None:
    """Refuses to read a column as text if most of its cells are of another kind.

    Raises:
      ValueError: naming the first cell that is not of that kind.
    """
    table, rows = train
    filled = [row for row in rows if table.columns[column][row] is not None]
    for kind in INPUT_KINDS:
        if kind is Text:
            continue
        odd: list[int] = []
        for row in filled:
            if not kind.matches_cells([table.columns[column][row]]):
                odd.append(row)
            if len(odd) > _MAX_ODD_CELLS * len(filled):
                break
        else:
            raise ValueError(
                f"{table.place(odd[0])}, column {column!r}: {table.columns[column][odd[0]]!r} is "
                f"not of the kind {kind.__name__}, as {len(filled) - len(odd)} of "
                f"{len(filled)} cells are. Leave it empty if it is missing, correct it, or name "
                f"the kind of {modality!r}, such as Text({column!r})."
            )


def _infer_target_kind(column: str, train: _Part) -> Target:
    cells = _list_filled_cells(column, train)
    kind = next(kind for kind in TARGET_KINDS if kind.matches_cells(cells))
    if kind is Label:
        _check_no_odd_target(column, train)
    return kind(column)


def _check_no_odd_target(column: str, train: _Part) -> None:
    """Refuses to take numbers for the names of classes because of a few other cells.

    Raises:
      ValueError: naming the first cell that is not a number.
    """
    table, rows = train
    cells = table.columns[column]
    filled = [row for row in rows if cells[row] is not None]
    odd = [row for row in filled if not is_number(cells[row])]
    numbers = [cells[row] for row in filled if is_number(cells[row])]
    if odd and len(odd) <= _MAX_ODD_CELLS * len(filled) and Value.matches_cells(numbers):
        raise ValueError(
            f"{table.place(odd[0])}, column {column!r}: {cells[odd[0]]!r} is not a number, as "
            f"{len(numbers)} of {len(filled)} cells are. Leave it empty if it is missing, correct "
            f"it, or name the kind of the target, such as Value({column!r}) or Label({column!r})."
        )


def _make_reader(spec: Input, train: _Part) -> Reader:
    """Makes the reader of a modality, with what the training split says about it."""
    table, rows = train
    columns = [[table.columns[name][row] for row in rows] for name in get_columns(spec)]
    filled = [cells for cells in zip(*columns, strict=True) if any(c is not None for c in cells)]
    columns = [[cells[i] for cells in filled] for i in range(len(columns))]
    return Reader(spec, spec.learn(columns, train[0].path.parent))
