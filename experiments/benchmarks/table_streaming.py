"""Measures the throughput of a streamed Parquet folder beside a PyTorch DataLoader.

    python experiments/benchmarks/table_streaming.py [--rows 100000] [--workers 0] [--rounds 5]

Writes a folder of Parquet files (32 numbers, a text of some 100 characters, a class), and reads one
globally shuffled epoch of it per round, in turns:

- mmjax: the feed that `fit` uses, from the blocks of `from_table(..., stream=Streaming())`;
- mapped: a DataLoader over memory-mapped .npy files of the same encoded rows, which somebody must
  have written (float32 numbers, tokens with their lengths), one row per `__getitem__`, as is usual;
- parquet: a DataLoader over the Parquet files with a cache of 8 row groups, of a few batches only.

All may use as many workers; mmjax reads by threads here, as nothing is decoded. Printed as a line
of JSON: examples per second after the first batch, the median over the rounds of the ratio within a
round by the clock and, without workers, by processor time, which is comparable on a busy machine,
and what the first and the second start take.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import torch

from mmjax.data import Label, Numbers, Streaming, Text, from_table
from mmjax.data.dataset import Dataset
from mmjax.data.sampling.batch_order import TrainIndexPlan
from mmjax.data.streaming import make_streaming_feed

NUMBERS = 32
FILES = 8
BATCH = 256
LONGEST = 128  # tokens
PARQUET_BATCHES = 4  # of the slow reader


def write_files(folder: Path, rows: int) -> None:
    """Writes random rows, in row groups of a 50th of all rows."""
    draw = np.random.default_rng(0)
    for i in range(FILES):
        count = rows // FILES
        columns: dict[str, Any] = {f"x{k}": draw.normal(size=count) for k in range(NUMBERS)}
        lengths = draw.integers(80, LONGEST, count)
        columns["note"] = [
            draw.integers(97, 123, n, np.uint8).tobytes().decode() for n in lengths.tolist()
        ]
        columns["y"] = [f"class {c}" for c in draw.integers(0, 10, count)]
        table = pyarrow.table(columns)
        parquet.write_table(table, folder / f"{i}.parquet", row_group_size=max(1, rows // 50))


def load(folder: Path, cache: Path) -> Dataset:
    """Streams the folder; every row is a training example but for a few."""
    return from_table(
        folder,
        {"numbers": Numbers(tuple(f"x{k}" for k in range(NUMBERS))), "note": Text("note")},
        {"y": Label("y")},
        split={"train": 0.98, "test": 0.02},
        stream=Streaming(cache),
    )


class MappedRows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows of memory-mapped files."""

    def __init__(self, folder: Path) -> None:
        self.numbers, self.notes, self.lengths, self.labels = (
            np.load(folder / f"{name}.npy", mmap_mode="r")
            for name in ("numbers", "notes", "lengths", "labels")
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        note = torch.from_numpy(self.notes[row].astype(np.int64))
        numbers = torch.from_numpy(np.array(self.numbers[row]))
        return numbers, note, int(self.lengths[row]), int(self.labels[row])


class ParquetRows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows of Parquet files, of which some row groups are kept."""

    def __init__(self, folder: Path) -> None:
        self.places = []
        for path in sorted(folder.glob("*.parquet")):
            metadata = parquet.read_metadata(path)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                self.places += [(str(path), group, row) for row in range(rows)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        path, group, local = self.places[row]
        cells = read_group(path, group).slice(local, 1).to_pylist()[0]
        note = torch.zeros(LONGEST, dtype=torch.int64)
        tokens = torch.frombuffer(bytearray(cells["note"].encode()), dtype=torch.uint8)
        note[: len(tokens)] = tokens
        numbers = torch.tensor([cells[f"x{k}"] for k in range(NUMBERS)])
        return numbers, note, len(tokens), int(cells["y"].removeprefix("class "))


@functools.lru_cache(maxsize=8)
def read_group(path: str, group: int) -> Any:
    """Reads a row group."""
    return parquet.ParquetFile(path).read_row_group(group)


def write_mapped_files(data: Dataset, folder: Path) -> None:
    """Writes the training examples as .npy files, for PyTorch."""
    batch = data.splits["train"].take(np.arange(len(data.splits["train"])))
    np.save(folder / "numbers.npy", batch.inputs["numbers"])
    np.save(folder / "notes.npy", batch.inputs["note"].astype(np.int16))
    np.save(folder / "lengths.npy", batch.lengths["note"])
    np.save(folder / "labels.npy", batch.targets["y"])


def iterate_mmjax(data: Dataset, workers: int, seed: int) -> Iterable[Any]:
    """Reads an epoch by the feed of `fit`, a batch per dispatch."""
    examples = len(data.splits["train"])
    steps = examples // BATCH
    ranges = tuple((step, step + 1) for step in range(steps))
    feed = make_streaming_feed(data.splits["train"], jax.devices()[:1], workers=workers)
    return feed.chunks(TrainIndexPlan((seed,), examples, BATCH, ranges))


def iterate_torch(rows: Any, workers: int, seed: int) -> Iterable[Any]:
    """Reads an epoch by a DataLoader."""
    shuffled = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"shuffle": True, "drop_last": True, "generator": shuffled}
    return torch.utils.data.DataLoader(rows, BATCH, num_workers=workers, **options)


def measure(read: Callable[[], Iterable[Any]], batches: int | None = None) -> tuple[float, float]:
    """Returns the seconds per example by the clock and of this process, after the first batch."""
    batches_read = iter(read())
    next(batches_read)  # for which processes start
    clock, cores, count = time.perf_counter(), time.process_time(), 0
    for _ in batches_read:
        count += 1
        if count == batches:
            break
    clock, cores = time.perf_counter() - clock, time.process_time() - cores
    return clock / (count * BATCH), cores / (count * BATCH)


def main() -> None:
    """Measures, and prints a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("rows", 100_000), ("workers", 0), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("table", "mapped"):
            (root / part).mkdir()
        write_files(root / "table", options.rows)
        starts = []
        for _ in range(2):
            start = time.perf_counter()
            data = load(root / "table", root / "cache")
            starts.append(time.perf_counter() - start)
        write_mapped_files(data, root / "mapped")
        mapped, groups = MappedRows(root / "mapped"), ParquetRows(root / "table")
        rounds = []
        for seed in range(options.rounds + 1):
            ours = measure(functools.partial(iterate_mmjax, data, options.workers, seed))
            theirs = measure(functools.partial(iterate_torch, mapped, options.workers, seed))
            rounds.append((ours, theirs))
        slow = measure(functools.partial(iterate_torch, groups, 0, 0), PARQUET_BATCHES)
    del rounds[0]  # in which programs start, and files come into memory
    ratios = [statistics.median(b[i] / a[i] for a, b in rounds) for i in range(2)]
    result = {
        "rows": options.rows,
        "workers": options.workers,
        "mmjax_examples_per_second": round(1 / statistics.median(a[0] for a, _ in rounds)),
        "mapped_examples_per_second": round(1 / statistics.median(b[0] for _, b in rounds)),
        "parquet_examples_per_second": round(1 / slow[0]),
        "ratio_to_mapped_by_clock": round(ratios[0], 2),
        "ratio_to_mapped_by_processor": None if options.workers else round(ratios[1], 2),
        "first_start_seconds": round(starts[0], 1),
        "second_start_seconds": round(starts[1], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
