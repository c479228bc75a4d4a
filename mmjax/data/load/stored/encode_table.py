"""Encodes all parts of a table, and puts together what is found in each split."""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.describe.announce import announce_once
from mmjax.data.limits import check_declared_size, format_size
from mmjax.data.load.scan_cache import parse_stats, parse_target
from mmjax.data.load.scan_split import FileTargets, SplitScan
from mmjax.data.load.stored.encode import (
    EncodingPlan,
    are_media_unchanged,
    encode_part,
    list_split_blocks,
)
from mmjax.data.load.stored.file_columns import FileShapes, merge_file_shapes
from mmjax.data.load.stored.media_columns import TARGET
from mmjax.data.load.stored.parallel_jobs import Job, JobFolder
from mmjax.data.load.stored.split_blocks import SplitBlock
from mmjax.data.load.stored.split_scans import merge_scan_stats
from mmjax.data.load.stored.survey import PartRows, make_part_key
from mmjax.data.load.stored.table_parts import FilePart

_VERSION = 1  # of the encoding
_BYTES_PER_ROW = 256  # about, to decide how many processes read


class StoredSplit(NamedTuple):
    """The encoded rows of a split.

    Attributes:
      scan: what was found, without inputs; its rows are numbered from 0.
      blocks: where the inputs lie.
      weights: {task: weights of the examples}.
      shapes: of the targets that are files.
    """

    scan: SplitScan
    blocks: list[SplitBlock]
    weights: dict[str, Float[np.ndarray, " n"]]
    shapes: FileShapes


def encode_parts(
    name: str,
    parts: Sequence[FilePart],
    rows: Sequence[PartRows],
    plan: EncodingPlan,
    folder: JobFolder,
    max_disk: int,
) -> dict[str, StoredSplit]:
    """Encodes all parts, or finds that they are encoded already.

    Args:
      name: name of the data set, for messages.
      parts: the parts.
      rows: per part its rows in each split.
      plan: how rows become arrays.
      folder: where results and blocks lie.
      max_disk: the largest size of the blocks, in bytes.

    Returns:
      {split: its encoded rows}.

    Raises:
      LimitError: if the blocks would be larger than `max_disk`, or than the disk has space.
      ValueError: naming the place of a cell that cannot be read.
    """
    jobs = []
    for part, part_rows in zip(parts, rows, strict=True):
        chosen = [value for item in sorted(part_rows.items()) for value in item]
        key = make_part_key(_VERSION, plan.describe(), part.digest, part.start, part.keys, *chosen)
        arguments = (part, part_rows, plan, folder.path, key)
        jobs.append(Job(f"part-{key}", encode_part, arguments, part.rows * _BYTES_PER_ROW))
    missing = [job for job in jobs if not _is_usable(job, folder.read(job))]
    if missing:
        # The first part tells how large the others will be.
        result = next(
            iter(folder.run(missing[:1], f"Encoding the first part of {name}", _is_usable))
        )
        _check_disk(name, result, missing, folder, max_disk)
    stored: dict[str, StoredSplit] = {}
    for job, result in zip(jobs, folder.run(jobs, f"Encoding {name}", _is_usable), strict=True):
        for split in result["splits"]:
            total = stored.setdefault(split, StoredSplit(SplitScan(), [], {}, {}))
            _add_part(total, split, result, job.arguments[0], plan, folder)
            # Results of a table without such targets may be older than these.
            shapes = merge_file_shapes(
                total.shapes, result["splits"][split].get("file_targets", {})
            )
            stored[split] = total._replace(shapes=shapes)
    return {split: _finish_split(total, plan) for split, total in stored.items()}


def _is_usable(job: Job, result: Mapping[str, Any] | None) -> bool:
    """Checks that all blocks of a result are there, and that images and recordings are the same."""
    if result is None:
        return False
    part, _, plan, folder, _ = job.arguments
    blocks = [b for s in result["splits"] for b in list_split_blocks(result, s, part, folder)]
    return all(b.block.is_complete() for b in blocks) and are_media_unchanged(
        result, part, plan, folder
    )


def _check_disk(
    name: str, result: Mapping[str, Any], jobs: Sequence[Job], folder: JobFolder, limit: int
) -> None:
    """Prints how much disk the blocks take, estimated by the first part; refuses too much."""
    encoded = sum(block["size"] for block in result["blocks"])
    first, *others = [sum(map(len, job.arguments[1].values())) for job in jobs]
    rest = encoded * sum(others) // max(1, first)
    free = shutil.disk_usage(folder.path).free
    announce_once(
        f"{name}: the encoded examples take about {format_size(encoded + rest)} in {folder.path}, "
        f"where {format_size(free)} are free"
    )
    what = f"{name}: the encoded examples in {folder.path}"
    check_declared_size(what, encoded + rest, limit, "a Streaming max_disk")
    check_declared_size(what, rest, free, "a Streaming a cache with space for max_disk")


def _add_part(
    total: StoredSplit,
    split: str,
    result: Mapping[str, Any],
    part: FilePart,
    plan: EncodingPlan,
    folder: JobFolder,
) -> None:
    """Adds what was found in the next part."""
    found = result["splits"][split]
    scan = SplitScan(
        skipped=found["skipped"], blank=[0] * found["blank"], stats=parse_stats(found["stats"])
    )
    merge_scan_stats(total.scan, scan, plan.modalities)
    total.blocks.extend(list_split_blocks(result, split, part, folder.path))
    for stored in result["blocks"]:
        for task in plan.targets:
            distinct = [parse_target(v) for v in stored["targets"].get(f"{split}/{task}", ())]
            if distinct:
                block = next(b for b in total.blocks if b.block.path.name == stored["path"])
                codes = block.read(f"target/{task}").tolist()
                total.scan.targets.setdefault(task, []).extend([distinct[code] for code in codes])


def _finish_split(total: StoredSplit, plan: EncodingPlan) -> StoredSplit:
    """Concatenates what the blocks hold per example, beside the inputs."""
    blocks = total.blocks
    names = [name for name in (blocks[0].list_names() if blocks else ()) if "weight/" in name]
    weights = {}
    for name in names:
        parts = [block.read(name) for block in blocks]
        weights[name.removeprefix("weight/")] = np.concatenate(parts).astype(np.float64)
    digests = np.concatenate([block.read("digest") for block in blocks]).astype(np.uint64)
    scan: Any = total.scan
    scan.rows, scan.digests = np.arange(len(digests)), digests
    for column in plan.list_media():
        if column.prefix == TARGET:
            extremes = [block.read(f"{TARGET}extremes/{column.name}") for block in blocks]
            labeled = [block.read(f"{TARGET}present/{column.name}") for block in blocks]
            scan.targets[column.name] = FileTargets(
                np.concatenate(extremes), np.concatenate(labeled)
            )
    return total._replace(weights=weights)
