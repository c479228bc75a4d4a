"""Data sets of tables that are larger than memory."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import files
from mmjax.config import trust
from mmjax.data.dataset import Dataset, Source, Task
from mmjax.data.kinds import FILE_KINDS, Target
from mmjax.data.load.assemble import assemble_dataset
from mmjax.data.load.check_dataset import check_sizes
from mmjax.data.load.decoded_source import DecodedInputs
from mmjax.data.load.hints import note_column_counts
from mmjax.data.load.stored.divide_table import divide_table
from mmjax.data.load.stored.encode import EncodingPlan
from mmjax.data.load.stored.encode_table import StoredSplit, encode_parts
from mmjax.data.load.stored.file_columns import FileShapes, merge_file_shapes
from mmjax.data.load.stored.merge_surveys import Survey
from mmjax.data.load.stored.parallel_jobs import JobFolder
from mmjax.data.load.stored.stored_rows import StoredRows
from mmjax.data.load.stored.survey import PartRows, survey_parts
from mmjax.data.load.stored.table_parts import FilePart
from mmjax.data.load.table_options import TableOptions
from mmjax.data.load.tables.dialect import DEFAULT_DIALECT
from mmjax.data.load.tables.rows import Reader
from mmjax.data.normalize import StandardizedSource
from mmjax.types import Batch

_MAX_DISK = 1 << 38


class Streaming(NamedTuple):
    """How a table that is larger than memory is read.

    Attributes:
      cache: folder of the encoded examples; None: "tables" in the user's cache of mmjax, which
        the environment variable MMJAX_CACHE moves. It may be deleted when nothing runs.
      processes: number of processes that read the files at first; None: one per processor core.
      max_disk: the largest size of the encoded examples in bytes. It is estimated and printed as
        soon as the first part is encoded.

    Example:
      >>> Streaming(processes=4).max_disk == 256 << 30
      True
    """

    cache: str | os.PathLike[str] | None = None
    processes: int | None = None
    max_disk: int = _MAX_DISK


def stream_table(table: Any, options: TableOptions, streaming: Streaming) -> Dataset:
    """Makes a data set whose encoded rows lie on disk.

    Args:
      table: the paths of a table, or {split: paths}.
      options: how rows are read.
      streaming: where the encoded rows lie.

    Raises:
      FileNotFoundError: there is no such file.
      LimitError: the encoded rows would take more disk than allowed, or than there is.
      ValueError: as `from_table`.
    """
    _check_streamable(table, options)
    folder = JobFolder(_locate_cache(table, streaming), streaming.processes or _count_cores())
    plan = options.columns
    with files.lock_file(folder.path / ".lock", f"it reads the same table into {folder.path}"):
        parts, rows = divide_table(
            table, plan.list_columns(), plan.cells, options.get_split(), options.seed, folder
        )
        name = options.name or _name_table(parts, rows)
        check_sizes(name, _count_rows(rows))
        survey = survey_parts(parts, rows, plan, folder)
        encoding = _plan_encoding(survey, options)
        stored = encode_parts(name, parts, rows, encoding, folder, streaming.max_disk)
    data = _assemble(name, stored, encoding)
    given = [(m, s, survey.inputs[m]) for m, s in plan.inputs.items()]
    goals = [(t, g, survey.targets[t]) for t, g in plan.targets.items()]
    note_column_counts(name, [*given, *goals], survey.names, survey.gaps)
    return data


def _check_streamable(table: Any, options: TableOptions) -> None:
    """Refuses tables that are in memory."""
    plan, sources = options.columns, _list_paths(table)
    is_in_memory = isinstance(table, Mapping) and set(plan.list_columns()) <= set(table)
    if is_in_memory or not all(isinstance(path, str | os.PathLike) for path in sources):
        raise ValueError(
            "stream is for files, but the table is in memory already; leave stream out, or write "
            "the table to a Parquet file."
        )
    if isinstance(table, Mapping) and options.split is not None:
        raise ValueError("split is given, but the table is already one per split; leave it out.")


def _list_paths(table: Any) -> list[Any]:
    parts = list(table.values()) if isinstance(table, Mapping) else [table]
    return [p for part in parts for p in (part if isinstance(part, list | tuple) else [part])]


def _locate_cache(table: Any, streaming: Streaming) -> Path:
    """Returns the folder of a table's encoded rows."""
    paths = _list_paths(table)
    located = [str(Path(path).expanduser().resolve()) for path in paths]
    digest = hashlib.sha256(repr(located).encode()).hexdigest()[:12]
    name = f"{Path(paths[0]).stem.replace('*', '')}-{digest}"
    if streaming.cache is not None:
        named = Path(streaming.cache).expanduser() / name
        # A stored run of somebody else does not choose where new files are written.
        if trust.may_prepare_data() or named.is_dir():
            return named
    if mmjax_cache := os.environ.get("MMJAX_CACHE"):
        return Path(mmjax_cache) / "tables" / name
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "mmjax" / "tables" / name


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name_table(parts: Sequence[FilePart], rows: Sequence[PartRows]) -> str:
    """Names a data set as the first file of its training split."""
    for part, part_rows in zip(parts, rows, strict=True):
        if "train" in part_rows:
            return part.path.stem
    return parts[0].path.stem


def _count_rows(rows: Sequence[PartRows]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part_rows in rows:
        for split, numbers in part_rows.items():
            sizes[split] = sizes.get(split, 0) + len(numbers)
    return sizes


def _plan_encoding(survey: Survey, options: TableOptions) -> EncodingPlan:
    readers = {m: Reader(spec, survey.learned[m]) for m, spec in survey.inputs.items()}
    return EncodingPlan(
        columns=options.columns,
        readers=readers,
        modalities={m: r.spec.declare_modality(r.learned) for m, r in readers.items()},
        targets=survey.targets,
        standardize=options.standardize,
        skip_unreadable=options.skip_unreadable,
    )


def _declare_tasks(
    stored: Mapping[str, StoredSplit], plan: EncodingPlan
) -> tuple[dict[str, Task | None], dict[str, tuple[Target, Task]]]:
    """Declares all tasks, and those whose targets are files with their kinds.

    Raises:
      ValueError: naming two rows whose targets have different shapes.
    """
    shapes: FileShapes = {}
    for split in ("train", *stored):
        shapes = merge_file_shapes(shapes, stored[split].shapes)
    tasks = {t: kind.declare_task() for t, kind in plan.targets.items()}
    file_targets = {}
    for t, kind in plan.targets.items():
        task = tasks[t]
        if task is not None and isinstance(kind, FILE_KINDS):
            tasks[t] = task = task._replace(shape=tuple(shapes[t][0]) if t in shapes else ())
            file_targets[t] = (kind, task)
    return tasks, file_targets


def _assemble(name: str, stored: Mapping[str, StoredSplit], plan: EncodingPlan) -> Dataset:
    ends = {s: np.cumsum([b.count_rows() for b in part.blocks]) for s, part in stored.items()}
    media = {m: plan.readers[m] for m, r in plan.readers.items() if isinstance(r.spec, FILE_KINDS)}
    tasks, file_targets = _declare_tasks(stored, plan)

    def make_source(split: str, inputs: DecodedInputs, labels: Batch) -> Source:
        modalities, dtypes, scales = inputs.modalities, inputs.dtypes, inputs.scales
        blocks = tuple(stored[split].blocks)
        kept = {t: y for t, y in labels.targets.items() if t not in file_targets}
        labels = labels._replace(targets=kept)
        source = StoredRows(blocks, ends[split], modalities, dtypes, media, labels, file_targets)
        return StandardizedSource(source, modalities, scales) if scales else source

    def make_place(split: str) -> Any:
        def place(row: int) -> str:
            number = int(np.searchsorted(ends[split], row, side="right"))
            first = int(ends[split][number - 1]) if number else 0
            return stored[split].blocks[number].place(row - first)

        return place

    dialect = plan.columns.cells.dialect
    return assemble_dataset(
        name,
        {split: part.scan for split, part in stored.items()},
        make_source,
        {split: make_place(split) for split in stored},
        modalities=plan.modalities,
        kinds={m: (r.spec, r.learned) for m, r in plan.readers.items()},
        tasks=tasks,
        weights={split: part.weights for split, part in stored.items()},
        facts={} if dialect == DEFAULT_DIALECT else {"table_options": dialect._asdict()},
    )
