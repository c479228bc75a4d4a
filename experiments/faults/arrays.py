"""Fuzzes `from_arrays` and `from_table`: each input gives a data set or a refusal that says why.

    python experiments/faults/arrays.py --cases 2000 --seed 0

Each case damages good arrays, .npz files, CSV or Parquet tables, images or recordings in one to
three ways. A data set that results must hold finite numbers of 32 bits wherever something is
present. Expected: 0 failures; 2,000 cases take some minutes.
"""

import argparse
import contextlib
import csv
import datetime
import decimal
import io
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import jax.numpy as jnp
import numpy as np
import PIL.Image
from scipy.io import wavfile
from watch import Watch, run_cases

import mmjax
from mmjax.data import (
    Audio,
    Image,
    Label,
    Labels,
    Numbers,
    Text,
    Value,
    from_arrays,
    from_table,
)
from mmjax.data.checks.validate import validate_split
from mmjax.data.dataset import Dataset, Modality, Task
from mmjax.data.normalize import make_validity_mask

SIZES = {"train": 24, "validation": 8, "test": 8}
NAMES = ("walk", "steps", "vector", "here", "word", "photo", "kind", "size", "tags", "known")
DTYPES = [
    "?", "i1", "u1", "i2", ">i4", "u4", "i8", ">i8", "u8", "f2", "f4", ">f4", "f8", ">f8", "g", "F",
    "D", "M8[D]", "M8[ns]", "m8[s]", "S3", "U4", "O", "V4",
]  # fmt: skip
ODD = [
    None, np.nan, np.inf, -np.inf, 1e300, -1e39, 2**31, 2**32 + 1, 2**63, -(2**63), 10**400, True,
    1j, "", "x", "7", b"x", b"\xff", [], [1], [[1], [2, 3]], {}, {"a": 1}, (), object(), len, 0, -1,
    np.datetime64("2020-01-01"), datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1),
    decimal.Decimal("1.5"), np.zeros(3), np.zeros((0, 2)), np.float16(1), np.ma.masked, "\udcff",
    "a\x00b", np.array(None), np.zeros((2, 2, 2)), range(3), {1, 2},
]  # fmt: skip
CELLS = [
    "", " ", "NA", "nan", "inf", "-inf", "1e400", "1e39", "9" * 400, "2147483648", "0x10", "1_000",
    "\uff11",  "1,5", '"', '""', "'", "a\x00b", "true", "False", "-0", "+1", "1.0", ".5", "\ufeff",
    "é", "\u202e", "2020-01-01", "[1, 2]", "x" * 140_000, "/dev/zero", "..", "/", ".", "~",
    "no.png", "no.wav", "a/b.png", "\udcff",
]  # fmt: skip


def make_arrays(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Makes one split with every kind of input and target, all of them valid."""
    return {
        "walk": rng.normal(size=(n, 5, 2)).astype(np.float32),
        "steps": rng.integers(1, 6, n),
        "vector": rng.normal(size=(n, 3)),
        "here": rng.random(n) < 0.8,
        "word": rng.choice(["fig", "pear", "äpfel"], n).tolist(),
        "photo": rng.integers(0, 256, (n, 4, 4, 1)).astype(np.uint8),
        "kind": np.arange(n) % 3,
        "size": rng.normal(size=n),
        "tags": rng.integers(0, 2, (n, 2)),
        "known": rng.random(n) < 0.9,
    }


def insert_odd_value(rng: random.Random, value: Any, odd: Any) -> Any:
    """Replaces one entry of an array or a list by an odd value."""
    if rng.random() < 0.3 or not isinstance(value, np.ndarray):
        rows = list(value)
        if rows:
            rows[rng.randrange(len(rows))] = odd
        return rows
    copy = value.astype(rng.choice([value.dtype, np.float64, np.int64, object]))
    if copy.size:
        copy.reshape(-1)[rng.randrange(copy.size)] = odd
    return copy


def reshape_array(rng: random.Random, value: Any) -> Any:
    """Returns an array of another shape, layout or kind."""
    array = np.asarray(value)
    return rng.choice(
        [
            lambda: array[:-1],
            lambda: array[:0],
            lambda: array[..., None],
            lambda: array[..., :0],
            lambda: array[0],
            lambda: array.reshape(-1),
            lambda: np.asfortranarray(array),
            lambda: array[::-1],
            lambda: np.broadcast_to(array[:1], array.shape),
            lambda: list(array),
            lambda: array.tolist(),
            lambda: tuple(array),
            lambda: iter(array),
            lambda: (x for x in array),
            lambda: dict(enumerate(array)),
            lambda: jnp.asarray(array),
            lambda: np.ma.masked_array(array, np.random.default_rng(0).random(array.shape) < 0.1),
            lambda: np.ma.masked_all(array.shape, array.dtype),
            lambda: [row[: rng.randrange(1 + np.size(row))] for row in np.atleast_1d(array)],
            lambda: array.astype(rng.choice(DTYPES)),
            lambda: np.zeros(len(array), [("a", "f4"), ("b", "i4")]),
            lambda: memoryview(np.ascontiguousarray(array)),
            lambda: str(array[0]),
            lambda: None,
            lambda: 3,
        ]
    )()


def damage_arrays(rng: random.Random, parts: dict[str, Any]) -> None:
    """Damages one array of one split, or of all."""
    splits = list(parts) if rng.random() < 0.3 else [rng.choice(list(parts))]
    key = rng.choice(NAMES)
    odd, kind = rng.choice(ODD), rng.random()
    for split in splits:
        value = parts[split].get(key)
        # An odd value that cannot even be made is not a case.
        with contextlib.suppress(Exception):
            parts[split][key] = (
                insert_odd_value(rng, value, odd) if kind < 0.5 else reshape_array(rng, value)
            )
    if rng.random() < 0.05:
        del parts[rng.choice(list(parts))]
    if parts and rng.random() < 0.05:
        parts[rng.choice(list(parts))] = rng.choice([None, [], {}, 3, "no.npz", Path("no.npz")])


def draw_options(rng: random.Random) -> dict[str, Any]:
    """Draws optional arguments, some of which are wrong."""
    options: dict[str, Any] = {}
    choices = {
        "standardize": [(), ("vector",), ("photo",), ("word",), ("no",)],
        "modalities": [
            {"walk": Modality((9, 2), True)},
            {"walk": Modality((2, 2), True)},
            {"vector": Modality((3,))},
            {"vector": Modality((4,))},
            {"no": Modality((4,))},
        ],
        "tasks": [
            {"kind": Task("classification", ("a", "b", "c"))},
            {"kind": Task("ordinal", ("0", "1", "2"))},
            {"size": Task("classification", ())},
            {"kind": Task("regression")},
            {"tags": Task("multilabel", ("a",))},
            {"kind": Task("segmentation", ("a", "b"), shape=(2, 2))},
        ],
        "labeled": [{"kind": "known"}, {"kind": "vector"}, {"no": "known"}, {"size": "known"}],
        "lengths": [{}, {"word": "steps"}, {"walk": "size"}, {"vector": "steps"}],
        "present": [{}, {"walk": "here"}, {"photo": "kind"}],
    }
    for name, values in choices.items():
        if rng.random() < 0.15:
            options[name] = rng.choice(values)
    return options


def draw_array_case(rng: random.Random, folder: Path) -> tuple[str, Callable[[], Dataset]]:
    """Draws a call of `from_arrays`."""
    parts: dict[str, Any] = {}
    for split, n in SIZES.items():
        parts[split] = make_arrays(np.random.default_rng(rng.randrange(2**32)), n)
    for _ in range(rng.randrange(1, 4)):
        usable = {s: p for s, p in parts.items() if isinstance(p, dict) and p}
        if usable:
            damage_arrays(rng, usable)
            parts = {s: usable.get(s, p) for s, p in parts.items() if s in usable or s in SIZES}
    if rng.random() < 0.2:
        parts = {s: store_split(rng, folder / f"{s}.npz", part) for s, part in parts.items()}
    inputs = rng.choice(
        [("walk", "vector", "word", "photo")] * 6 + [("walk",), ("word", "photo"), ("walk", "walk")]
    )
    targets = rng.choice([("kind", "size", "tags")] * 4 + [("kind",), ("size",), ("tags",)])
    options = {
        "lengths": {"walk": "steps"} if "walk" in inputs else {},
        "present": {"vector": "here"} if "vector" in inputs else {},
    } | draw_options(rng)
    return "from_arrays", lambda: from_arrays(parts, inputs, targets, **options)


def store_split(rng: random.Random, path: Path, part: Any) -> Any:
    """Stores a split as an .npz file, which is damaged in half of the cases."""
    if not isinstance(part, dict):
        return part
    try:
        np.savez(path, **part)
    except Exception:
        return part
    if rng.random() < 0.5:
        path.write_bytes(damage_bytes(rng, path.read_bytes()))
    return path


def damage_bytes(rng: random.Random, content: bytes) -> bytes:
    """Returns content with flipped, lost or doubled bytes."""
    data = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        index = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0 if data:
                data[index - 1] = rng.randrange(256)
            case 1:
                del data[index:]
            case 2:
                data[index : index + rng.randrange(1, 9)] = b""
            case 3:
                data[index:index] = data[index : index + 4]
    return bytes(data)


def make_files(folder: Path) -> None:
    """Makes images and recordings for the tables."""
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        PIL.Image.fromarray(pixels).save(folder / f"{i}.jpg")
        sound = rng.integers(-9999, 9999, 900 + 40 * i).astype(np.int16)
        wavfile.write(folder / f"{i}.wav", 8000, sound)


def damage_file(rng: random.Random, folder: Path, row: int) -> str:
    """Writes a damaged image or recording, and returns its name."""
    kind = rng.choice(["png", "jpg", "wav"])
    path = folder / f"damaged.{kind}"
    path.write_bytes(damage_bytes(rng, (folder / f"{row}.{kind}").read_bytes()))
    return path.name


def make_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Makes the rows of a good table."""
    ends = rng.choice(["png", "jpg"])
    return [
        {
            "height": round(rng.gauss(170, 9), 2),
            "weight": rng.randrange(50, 99),
            "note": rng.choice(["good day", "bad", "so, so", "äh"]) + f" {i}",
            "face": f"{i}.{ends}",
            "voice": f"{i}.wav",
            "mood": "abc"[i % 3],
            "income": rng.random(),
            "left": i % 2,
            "right": rng.randrange(2),
            "part": ["train", "train", "train", "validation", "test"][i % 5],
        }
        for i in range(40)
    ]


def encode_csv(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    """Writes rows as CSV, in a dialect and an encoding that may be wrong."""
    text = io.StringIO()
    delimiter = rng.choice([","] * 8 + [";", "\t", "|"])
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    end = rng.choice(["\n", "\r\n", "\n\n"] + ["\r"] * (rng.random() < 0.1))
    writer = csv.DictWriter(
        text, list(rows[0]), delimiter=delimiter, lineterminator=end, quoting=quoting
    )
    writer.writeheader()
    writer.writerows(rows)
    lines = text.getvalue().split(end)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        index = rng.randrange(len(lines))
        line = lines[index]
        lines[index] = rng.choice(
            [
                line + ",",
                line[: len(line) // 2],
                '"' + line,
                line.replace(",", ";"),
                "",
                line + '"x',
            ]
        )
    encoding = rng.choice(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1", "cp037"])
    content = end.join(lines).encode(encoding, "surrogatepass" if "utf" in encoding else "replace")
    return damage_bytes(rng, content) if rng.random() < 0.15 else content


def write_parquet(rng: random.Random, rows: list[dict[str, Any]], path: Path) -> None:
    """Writes rows as Parquet, with columns of other types."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {k: [row.get(k) for row in rows] for k in rows[0]}
    n = len(rows)
    odd = {
        "date": [datetime.date(2020, 1, 1 + i % 9) for i in range(n)],
        "time": [datetime.datetime(2020, 1, 1, i % 24) for i in range(n)],
        "decimal": [decimal.Decimal(i) / 4 for i in range(n)],
        "list": [[float(i), 2.0] for i in range(n)],
        "ragged": [[1.0] * (i % 4) for i in range(n)],
        "nested": [[[1.0], [2.0]] for i in range(n)],
        "struct": [{"a": i} for i in range(n)],
        "binary": [bytes([i, 255]) for i in range(n)],
        "bool": [bool(i % 2) for i in range(n)],
        "null": [None] * n,
        "nan": [np.nan] * n,
        "big": [2**62 + i for i in range(n)],
        "span": [datetime.timedelta(i) for i in range(n)],
    }
    for _ in range(rng.randrange(3)):
        columns[rng.choice(list(columns))] = rng.choice(list(odd.values()))
    arrays = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pyarrow.array(cells)
        except (pyarrow.ArrowException, OverflowError, UnicodeError):
            arrays[name] = pyarrow.array([str(c).encode("utf-8", "replace") for c in cells])
    parquet.write_table(pyarrow.table(arrays), path)
    if rng.random() < 0.15:
        path.write_bytes(damage_bytes(rng, path.read_bytes()))


def draw_table_case(rng: random.Random, folder: Path) -> tuple[str, Callable[[], Dataset]]:
    """Draws a call of `from_table`."""
    rows = make_rows(rng)
    for _ in range(rng.randrange(3)):
        row, key = rng.randrange(40), rng.choice(list(rows[0]))
        rows[row][key] = rng.choice(CELLS)
    if rng.random() < 0.25:
        row = rng.randrange(40)
        name = damage_file(rng, folder, row)
        rows[row]["voice" if name.endswith("wav") else "face"] = name
    if rng.random() < 0.6:
        path, kind = folder / "table.csv", "CSV"
        path.write_bytes(encode_csv(rng, rows))
    else:
        path, kind = folder / "table.parquet", "Parquet"
        write_parquet(rng, rows, path)
    inputs: dict[str, Any] = {
        "body": Numbers(("height", "weight")),
        "face": rng.choice(["face", Image("face", size=(4, 4)), Image("face", channels=1)]),
        "voice": rng.choice(["voice", Audio("voice", sample_rate=4000), Audio("voice", mels=4)]),
        "note": rng.choice(["note", Text("note", level="word"), Text("note", longest=3)]),
        "any": rng.choice(list(rows[0])),
    }
    targets: dict[str, Any] = {
        "mood": rng.choice(["mood", Label("mood"), Label("mood", ("a", "b"))]),
        "income": rng.choice(["income", Value("income")]),
        "sides": Labels(("left", "right")),
        "any": rng.choice(list(rows[0])),
    }
    for spec in (inputs, targets):
        for name in rng.sample(list(spec), rng.randrange(1, len(spec))):
            del spec[name]
    options = {
        "split": rng.choice(["part"] * 4 + [None, "mood", "no", {"train": 0.5, "test": 0.5}]),
        "in_memory": rng.random() < 0.6,
        "skip_unreadable": rng.random() < 0.2,
    }
    return kind, lambda: from_table(path, inputs, targets, **options)


def check_data(data: Dataset) -> None:
    """Raises AssertionError unless all present values are finite numbers of 32 bits."""
    for split, source in data.splits.items():
        batch = source.take(np.arange(len(source)))
        validate_split(data.name, split, batch, data.modalities, data.tasks)
        for name, x in batch.inputs.items():
            assert x.dtype in (np.float32, np.int32, np.uint8), (name, x.dtype)
            is_real = make_validity_mask(
                batch.present[name], batch.lengths.get(name), data.modalities[name]
            )
            assert np.isfinite(x[is_real]).all(), name
        for name, y in batch.targets.items():
            assert y.dtype in (np.float32, np.int32), (name, y.dtype)
            assert np.isfinite(y[batch.labeled[name]]).all(), name


class UnclearError(Exception):
    """A refusal that does not say where the input is wrong."""


LOCATION_WORDS = (
    "row", "line", "split", "column", "table", "array", ".npz", "standardize", "target",
    "modality '", " names '",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    warnings.simplefilter("ignore")
    watch = Watch((Path(mmjax.__file__).parent, Path(__file__).parent))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        # Imports what all cases need, since the watch counts every import as an effect.
        with contextlib.redirect_stderr(io.StringIO()):
            (folder / "good.csv").write_bytes(encode_csv(random.Random(3), make_rows(rng)))
            voice = {"voice": Audio("voice", sample_rate=4000)}
            from_table(folder / "good.csv", voice, {"mood": "mood"})

        def run_case(number: int) -> None:
            draw = draw_array_case if number % 2 else draw_table_case
            kind, make = draw(rng, folder)
            with (
                contextlib.redirect_stderr(io.StringIO()),
                watch.case(f"case {number}, {kind}", (ValueError, FileNotFoundError)),
            ):
                try:
                    data = make()
                except ValueError as error:
                    if not any(word in str(error) for word in LOCATION_WORDS):
                        raise UnclearError(str(error)) from error
                    raise
                try:
                    check_data(data)
                except ValueError as error:
                    raise UnclearError(f"accepted, but {error}") from error

        run_cases(options.cases, run_case)
    return watch.report(f"arrays and tables, seed {options.seed}")


if __name__ == "__main__":
    sys.exit(main())
