"""The second pass over a table in parts: rows become arrays, which are written into blocks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds import FILE_KINDS, Target, Value
from mmjax.data.load.scan_cache import convert_stats, convert_target
from mmjax.data.load.scan_split import SplitScan, scan_split
from mmjax.data.load.stored.blocks import convert_block, parse_block, write_block
from mmjax.data.load.stored.file_columns import (
    FileShapes,
    collect_file_names,
    measure_file_targets,
    merge_file_shapes,
    stack_values,
)
from mmjax.data.load.stored.media_columns import TARGET, MediaColumn, digest_media_files
from mmjax.data.load.stored.merge_surveys import ColumnPlan
from mmjax.data.load.stored.split_blocks import SplitBlock
from mmjax.data.load.stored.split_scans import merge_scan_stats
from mmjax.data.load.stored.survey import PartRows, iterate_split_tables
from mmjax.data.load.stored.table_parts import FilePart
from mmjax.data.load.tables.dialect_cells import blank_missing_cells, normalize_kinds
from mmjax.data.load.tables.rows import Reader, TableRows
from mmjax.data.load.tables.table_files import Table
from mmjax.data.normalize import make_standardize_filter
from mmjax.data.sampling.example_weights import read_weight_cells

_TABLE_ROWS = 1024  # read at once
_MEDIA_ROWS = 64  # decoded at once, of images and recordings
_BLOCK_BYTES = 1 << 24  # a block is written when its arrays are as large


class EncodingPlan(NamedTuple):
    """How rows become arrays.

    Attributes:
      columns: what is read; its kinds are not used.
      readers: {modality: its reader}.
      modalities: {modality: without its shape}.
      targets: {task: its kind}.
      standardize: see `from_table`.
      skip_unreadable: whether examples with damaged files are left out.
    """

    columns: ColumnPlan
    readers: Mapping[str, Reader]
    modalities: Mapping[str, Modality]
    targets: Mapping[str, Target]
    standardize: Sequence[str] | None
    skip_unreadable: bool

    def describe(self) -> str:
        """Describes all that the arrays depend on."""
        return repr(self._replace(modalities={}))

    def list_media(self) -> list[MediaColumn]:
        """Lists the modalities and the tasks that are read from files when they are needed."""
        columns = [MediaColumn("", m, reader.spec) for m, reader in self.readers.items()]
        columns += [MediaColumn(TARGET, t, goal) for t, goal in self.targets.items()]
        return [column for column in columns if isinstance(column.spec, FILE_KINDS)]


def encode_part(
    part: FilePart, rows: PartRows, plan: EncodingPlan, folder: Path, key: str
) -> dict[str, Any]:
    """Encodes one part; the result is JSON that names its blocks.

    Args:
      part: the part.
      rows: its rows in each split.
      plan: how.
      folder: where blocks are written.
      key: begins their names.
    """
    scans = {split: SplitScan() for split in rows}
    shapes: dict[str, FileShapes] = {split: {} for split in rows}
    blocks: list[Any] = []
    pending = _Pending({}, {}, 0)
    media = plan.list_media()
    for table, local in iterate_split_tables(
        part, rows, plan.columns, _MEDIA_ROWS if media else _TABLE_ROWS
    ):
        _normalize(table, plan)
        for split, numbers in local.items():
            if numbers:
                scan = _scan_rows(table, numbers, split, plan)
                merge_scan_stats(scans[split], scan, plan.modalities)
                new = measure_file_targets(table, numbers, scan, media)
                shapes[split] = merge_file_shapes(shapes[split], new)
                pending = _collect_arrays(pending, split, table, numbers, scan, plan)
        if pending.size > _BLOCK_BYTES:
            blocks.append(_write_pending(folder / f"{key}-{len(blocks):04d}.bin", pending, plan))
            pending = _Pending({}, {}, 0)
    if pending.arrays or not blocks:
        blocks.append(_write_pending(folder / f"{key}-{len(blocks):04d}.bin", pending, plan))
    found = {}
    for split, scan in scans.items():
        found[split] = {
            "skipped": scan.skipped,
            "blank": len(scan.blank),
            "stats": convert_stats(scan.stats),
            "file_targets": shapes[split],
        }
    result = {"splits": found, "blocks": blocks}
    return {**result, "media": _digest_media(result, part, plan, folder)}


class _Pending(NamedTuple):
    """What the next block will hold.

    Attributes:
      arrays: {"split/name": arrays to concatenate}.
      targets: {"split/task": targets}.
      size: number of bytes.
    """

    arrays: dict[str, list[np.ndarray]]
    targets: dict[str, list[Any]]
    size: int


def _normalize(table: Table, plan: EncodingPlan) -> None:
    dialect = plan.columns.cells.dialect
    blank_missing_cells(table, dialect)
    specs = [reader.spec for reader in plan.readers.values()]
    weights = map(Value, plan.columns.weights.values())
    normalize_kinds(table, [*specs, *plan.targets.values(), *weights], dialect)


def _scan_rows(table: Table, rows: list[int], split: str, plan: EncodingPlan) -> SplitScan:
    """Decodes and checks some rows, as for examples in memory."""
    examples = TableRows(table, rows, plan.readers, plan.targets)
    return scan_split(
        examples,
        sequences=[m for m, modality in plan.modalities.items() if modality.sequence],
        keep=True,
        skip_unreadable=plan.skip_unreadable,
        drop_blank=plan.columns.blank_rows == "drop",
        measured=make_standardize_filter(plan.standardize if split == "train" else ()),
        title="",
    )


def _collect_arrays(
    pending: _Pending,
    split: str,
    table: Table,
    rows: list[int],
    scan: SplitScan,
    plan: EncodingPlan,
) -> _Pending:
    numbers = [rows[i] for i in scan.rows]
    places = [table.start + r if table.lines is None else table.lines[r] for r in numbers]
    arrays = {
        "place": np.array(places, np.int64),
        "digest": np.frombuffer(b"".join(scan.digests), np.uint64).reshape(-1, 2),
    }
    for task, values in read_weight_cells(table, numbers, plan.columns.weights).items():
        arrays[f"weight/{task}"] = values
    media = plan.list_media()
    for column in media:
        arrays |= collect_file_names(column, table, numbers, scan)
    for m, modality in plan.modalities.items():
        if MediaColumn("", m, plan.readers[m].spec) not in media:
            stored = [example[m] for example in scan.inputs]
            arrays |= stack_values(m, stored, is_ragged=modality.sequence)
    size = pending.size
    for name, array in arrays.items():
        pending.arrays.setdefault(f"{split}/{name}", []).append(array)
        size += array.nbytes
    for task, targets in scan.targets.items():
        pending.targets.setdefault(f"{split}/{task}", []).extend(targets)
    return pending._replace(size=size)


def _write_pending(path: Path, pending: _Pending, plan: EncodingPlan) -> dict[str, Any]:
    arrays = {name: np.concatenate(parts) for name, parts in pending.arrays.items()}
    for name, array in list(arrays.items()):
        # Where the values of an example lie among those that are there.
        split, what, modality = [*name.split("/", 2), ""][:3]
        if what.removeprefix(TARGET) == "lengths":
            arrays[f"{split}/{what.replace('lengths', 'ends')}/{modality}"] = np.cumsum(array)
        elif what == "present" and not array.all():
            arrays[f"{split}/index/{modality}"] = np.maximum(np.cumsum(array) - 1, 0)
    targets: dict[str, Any] = {}
    for name, values in pending.targets.items():
        distinct: dict[str, int] = {}
        texts = [json.dumps(convert_target(value)) for value in values]
        codes = [distinct.setdefault(text, len(distinct)) for text in texts]
        arrays["/target/".join(name.split("/", 1))] = np.array(codes, np.int64)
        targets[name] = [json.loads(text) for text in distinct]
    return {**convert_block(write_block(path, arrays)), "targets": targets}


def list_split_blocks(
    result: Mapping[str, Any], split: str, part: FilePart, folder: Path
) -> list[SplitBlock]:
    """Lists the blocks of a part's result that have rows of a split."""
    key = f"{part.digest} {part.start}"
    blocks = []
    for stored in result["blocks"]:
        block = parse_block(stored, folder)
        if f"{split}/place" in block.arrays:
            has_lines = part.groups is None
            blocks.append(SplitBlock(block, split, part.path, part.folder, has_lines, key))
    return blocks


def are_media_unchanged(
    result: Mapping[str, Any], part: FilePart, plan: EncodingPlan, folder: Path
) -> bool:
    """Checks whether the files that the cells of a part name are those that were read."""
    return bool(result["media"] == _digest_media(result, part, plan, folder))


def _digest_media(
    result: Mapping[str, Any], part: FilePart, plan: EncodingPlan, folder: Path
) -> str:
    media = plan.list_media()
    if not media:
        return ""
    splits = sorted(result["splits"])
    blocks = [b for split in splits for b in list_split_blocks(result, split, part, folder)]
    return digest_media_files(blocks, media)
