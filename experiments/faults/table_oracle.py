"""What a data set must hold for a table of known cells, computed by slow, plain means."""

import datetime
import itertools
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from table_cells import Cell, parse_plain_number
from table_files import RATE

from mmjax.data import (
    Audio,
    Boolean,
    DateTime,
    DepthMap,
    Image,
    Label,
    Labels,
    LabelSet,
    Mask,
    Numbers,
    Shares,
    Spans,
    Text,
    TokenLabels,
    Value,
)
from mmjax.data.dataset import Dataset
from mmjax.data.kinds import get_columns

Vector = list[float]
_MANY = 64  # so many combinations of readings are tried at most


def read_literally(kind: str, text: str) -> Cell:
    """Returns a cell by its text alone, as the documentation of the kinds reads it."""
    if not text:
        return Cell("", (None,))
    value: Any = None
    if kind in ("number", "whole", "weight", "share"):
        value = parse_plain_number(text)
    elif kind in ("text", "words", "name", "class"):
        value = text
    elif kind == "tags":
        value = text.split()
    elif kind == "spans":
        value = _parse_spans(text)
    elif kind == "flag":
        value = {"true": True, "false": False}.get(text.lower())
    elif kind == "bit":
        value = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}.get(text.lower())
    elif kind == "set":
        value = frozenset(part.strip() for part in text.split(";")) - {""}
    elif kind == "vector" and re.fullmatch(r"\s*\[[^\[\]]*\]\s*", text):
        parts = [parse_plain_number(x) for x in re.split(r",|\s+", text.strip()[1:-1].strip()) if x]
        value = None if None in parts else parts
    elif kind == "date":
        try:
            value = datetime.datetime.fromisoformat(text)
            if value.tzinfo is not None:
                value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        except ValueError:
            value = None
    return Cell(text, () if value is None else (value,))


def _parse_spans(text: str) -> list[list[Any]] | None:
    """Reads spans as lists of three; None if they are not written as such."""
    try:
        items = json.loads(text)
        items = [[i["start"], i["end"], i["label"]] if isinstance(i, dict) else i for i in items]
        return [[int(start), int(end), str(name)] for start, end, name in items]
    except (KeyError, TypeError, ValueError):
        return None


def read_as_text(column: Sequence[Cell]) -> list[Cell]:
    """Returns the cells of a column that is read as text: what they are spelled, or missing."""
    return [
        cell._replace(
            meanings=((cell.text,) if cell.text else ()) + (None,) * (None in cell.meanings)
        )
        for cell in column
    ]


def iterate_readings(columns: Sequence[Sequence[Cell]]) -> Iterator[list[list[Any]]]:
    """Yields the values of columns, for every way in which odd cells may be read."""
    meanings = [cell.meanings for column in columns for cell in column]
    size = len(columns[0])
    for choice in itertools.islice(itertools.product(*meanings), _MANY):
        yield [list(choice[i : i + size]) for i in range(0, len(choice), size)]


def fill_gaps(columns: list[list[Any]], train: Sequence[int], fill: str) -> list[Vector | None]:
    """Fills the gaps of rows that have any number, and appends indicators."""
    filled = [row for row in train if any(column[row] is not None for column in columns)]
    known = [[float(c[r]) for r in filled if c[r] is not None] for c in columns]
    average: Callable[[list[float]], float] = (
        statistics.fmean if fill == "mean" else statistics.median
    )
    fills = [average(values) if values else None for values in known]
    marked = [c for c in range(len(columns)) if len(known[c]) < len(filled)]
    rows: list[Vector | None] = []
    for r in range(len(columns[0])):
        values = [column[r] for column in columns]
        if all(v is None for v in values):
            rows.append(None)
            continue
        row = [fills[c] if v is None else float(v) for c, v in enumerate(values)]
        rows.append([math.nan if v is None else v for v in row])
        if len(columns) > 1:
            rows[-1] += [float(values[c] is None) for c in marked]
    return rows


def compute_moment_parts(
    values: list[Any], train: Sequence[int], wanted: Sequence[str]
) -> list[Vector | None]:
    """Computes days since the earliest training time, and points on circles."""
    times = [v for r in train if (v := values[r]) is not None]
    if not wanted:
        has_time = any(t.time() != datetime.time() for t in times)
        wanted = ["linear", *["day"] * has_time, "week", "year"]
    start, day = min(times), datetime.timedelta(days=1)
    rows: list[Vector | None] = []
    for t in values:
        if t is None:
            rows.append(None)
            continue
        monday = datetime.datetime.combine(t.date(), datetime.time()) - t.weekday() * day
        year = datetime.datetime(t.year, 1, 1)
        shares = {
            "day": (t - datetime.datetime.combine(t.date(), datetime.time())) / day,
            "week": (t - monday) / (7 * day),
            "year": (t - year) / (datetime.datetime(t.year + 1, 1, 1) - year),
        }
        row = [(t - start) / day] if "linear" in wanted else []
        for part in ("day", "week", "year"):
            if part in wanted:
                row += [math.sin(2 * math.pi * shares[part]), math.cos(2 * math.pi * shares[part])]
        rows.append(row)
    return rows


def standardize_rows(rows: list[Vector | None], train: Sequence[int]) -> list[Vector | None]:
    """Brings each feature to mean 0 and deviation 1 over the training rows; a constant to 0."""
    known = np.array([row for r in train if (row := rows[r]) is not None], np.float64)
    mean = np.array([math.fsum(column) / len(column) for column in known.T])
    deviation = np.sqrt(((known - mean) ** 2).mean(axis=0))
    scale = np.where(known.max(axis=0) == known.min(axis=0), 1.0, deviation)
    return [None if row is None else list((np.array(row) - mean) / scale) for row in rows]


def expect_input(
    spec: Any, train: Sequence[int], scaled: bool, values: list[list[Any]]
) -> list[Vector | None]:
    """Computes the numbers of a modality, one vector per row."""
    if isinstance(spec, Numbers | Boolean):
        if any(isinstance(v, list) for v in values[0]):
            rows: list[Vector | None] = [
                None if v is None else list(map(float, v)) for v in values[0]
            ]
        else:
            rows = fill_gaps(values, train, getattr(spec, "fill", "mean"))
    elif isinstance(spec, Image):
        return values[0]
    elif isinstance(spec, Audio):
        rows = [None if v is None else compute_log_mel(np.array(v), spec.mels) for v in values[0]]
        return _standardize_frames(rows, train, spec, scaled)
    elif isinstance(spec, DateTime):
        rows = compute_moment_parts(values[0], train, spec.parts)
    else:
        raise TypeError(spec)
    return standardize_rows(rows, train) if scaled else rows


def compute_log_mel(samples: np.ndarray, mels: int) -> np.ndarray:
    """Computes the logarithm of the power in mel bands of frames of 25 ms, 10 ms apart."""
    size, step, transform = RATE // 40, RATE // 100, 512
    samples = np.concatenate([samples, np.zeros(max(0, size - len(samples)))])
    times, bins = np.arange(size), np.arange(transform // 2 + 1)
    hann = (1 - np.cos(2 * np.pi * times / size)) / size  # sums up to 1
    waves = np.exp(-2j * np.pi * np.outer(times, bins) / transform)
    starts = range(0, len(samples) - size + 1, step)
    power = np.abs(np.array([samples[s : s + size] * hann for s in starts]) @ waves) ** 2
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = [700 * (10 ** (top * i / (mels + 1) / 2595) - 1) for i in range(mels + 2)]
    hertz = bins * RATE / transform
    bank = [np.interp(hertz, edges[i : i + 3], [0, 1, 0]) for i in range(mels)]
    return np.log(np.maximum(power @ np.array(bank).T, 1e-10))


def _standardize_frames(
    rows: list[Any], train: Sequence[int], spec: Audio, scaled: bool
) -> list[Vector | None]:
    """Cuts sequences of frames off, and brings each band to mean 0 and deviation 1."""
    cut = [None if row is None else row[: spec.longest] for row in rows]
    frames = np.concatenate([row for r in train if (row := cut[r]) is not None])
    mean, deviation = (frames.mean(axis=0), frames.std(axis=0)) if scaled else (0.0, 1.0)
    return [None if row is None else list(((row - mean) / deviation).ravel()) for row in cut]


def name_tokens(spec: Any, train: Sequence[int], values: list[list[Any]]) -> list[list[str] | None]:
    """Computes the names of the tokens of a text or of categories, one list per row."""
    rows: list[list[str] | None] = []
    if isinstance(spec, Text):
        counts: Counter[str] = Counter()
        split = [None if v is None else split_text(v, spec.level) for v in values[0]]
        counts.update(word for r in train for word in split[r] or ())
        for words in split:
            known = [w if spec.level == "byte" or w in counts else "unknown" for w in words or ()]
            rows.append(known[: spec.longest] or None)
        return rows
    names, tables = get_columns(spec), []
    filled = [row for row in train if any(column[row] is not None for column in values)]
    for column in values:
        counts = Counter(normalize_class(column[r]) for r in filled if column[r] is not None)
        tables.append({name for name, count in counts.items() if count >= spec.min_count})
    for r in range(len(values[0])):
        cells = [column[r] for column in values]
        if all(cell is None for cell in cells):
            rows.append(None)
            continue
        row = []
        for name, cell, table in zip(names, cells, tables, strict=True):
            known = "missing" if cell is None else normalize_class(cell)
            row.append(f"{name}: {known if cell is None or known in table else 'unknown'}")
        rows.append(row)
    return rows


def split_text(text: str, level: str) -> list[str]:
    """Splits a text into bytes, or an ASCII one into words."""
    if level == "byte":
        return [f"{byte:#04x}" for byte in text.encode()]
    return re.findall(r"\w+|[^\w\s]", text.lower())


def normalize_class(value: Any) -> str:
    """Returns the name of a class; whole numbers are written without decimals."""
    text = str(value)
    return re.sub(r"\.0+$", "", text) if re.fullmatch(r"-?[0-9]+\.0+", text) else text


def read_input(data: Dataset, split: str, name: str) -> list[Any]:
    """Returns what a split has for a modality: vectors, or names of tokens; None if missing."""
    source = data.splits[split]
    batch = source.take(np.arange(len(source)))
    modality = data.modalities[name]
    rows: list[Any] = []
    for r, x in enumerate(batch.inputs[name]):
        if not batch.present[name][r]:
            rows.append(None)
        elif modality.vocabulary:
            end = batch.lengths[name][r] if modality.sequence else None
            rows.append([modality.vocabulary[token] for token in x[:end]])
        else:
            end = batch.lengths[name][r] if modality.sequence else None
            rows.append([float(v) for v in np.ravel(x[:end])])
    return rows


def read_target(data: Dataset, split: str, name: str) -> list[Any]:
    """Returns the targets of a split as classes, sets, lists or numbers; None if unknown."""
    source = data.splits[split]
    batch = source.take(np.arange(len(source)))
    task, rows = data.tasks[name], []
    for y, labeled in zip(batch.targets[name], batch.labeled[name], strict=True):
        if not labeled:
            rows.append(None)
        elif task.kind in ("classification", "ordinal") and not task.shape:
            rows.append(task.classes[y])
        elif task.kind in ("sequence", "segmentation"):
            names = [task.classes[v] if v >= 0 else None for v in np.ravel(y)]
            rows.append(_drop_last_gaps(names) if task.kind == "sequence" else names)
        elif task.kind == "multilabel":
            rows.append([None if v < 0 else int(v) for v in y])
        else:
            rows.append([float(v) for v in np.ravel(y)] if np.ndim(y) else float(y))
    return rows


def _drop_last_gaps(names: list[str | None]) -> list[str | None]:
    """Leaves out the padding after the last label."""
    return names[: max((i + 1 for i, name in enumerate(names) if name is not None), default=0)]


def is_bad_weight(value: float | None) -> bool:
    """Checks whether a label may not have this weight."""
    return value is None or not (value == 0 or 1e-20 <= value <= 1e20)


def find_wrong_weight(data: Dataset, task: str, split: str, values: Sequence[Any]) -> str:
    """Compares the weights of a split with those of its rows; returns what differs, or ""."""
    source = data.splits[split]
    batch = source.take(np.arange(len(source)))
    for r, (found, labeled) in enumerate(
        zip(batch.weights[task], batch.labeled[task], strict=True)
    ):
        value = values[r] if labeled else 0.0
        if is_bad_weight(value):
            return f"row {r} has a label of weight {value}"
        if found != np.float32(value):
            return f"row {r}: {found}, not {value}"
    return ""


def expect_target(spec: Any, classes: Sequence[str], values: list[list[Any]]) -> list[Any]:
    """Computes the targets of a task, one per row."""
    if isinstance(spec, Label):
        return [None if v is None else normalize_class(v) for v in values[0]]
    if len(values) > 1 and isinstance(spec, Value | Shares):
        return [_expect_vector(isinstance(spec, Shares), row) for row in zip(*values, strict=True)]
    if isinstance(spec, Value) and any(isinstance(v, list) for v in values[0]):
        return [None if v is None else [float(x) for x in v] for v in values[0]]
    if isinstance(spec, Value):
        return [None if v is None else float(np.float32(v)) for v in values[0]]
    if isinstance(spec, LabelSet):
        return [None if v is None else [int(c in v) for c in classes] for v in values[0]]
    if isinstance(spec, Mask | DepthMap):
        return values[0]
    if isinstance(spec, TokenLabels):
        return [None if v is None else list(map(normalize_class, v)) for v in values[0]]
    if isinstance(spec, Spans):
        return [_tag_tokens(spans, text) for spans, text in zip(*values, strict=True)]
    assert isinstance(spec, Labels)
    rows = [list(row) for row in zip(*values, strict=True)]
    return [None if all(v is None for v in row) else row for row in rows]


def _tag_tokens(spans: Any, text: str | None) -> Any:
    """Computes the tag of each token of an ASCII text; None without spans or text."""
    if spans is None or text is None:
        return None
    tokens = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    tags = ["O"] * len(tokens)
    for start, end, name in spans:
        free = [i for i, (a, b) in enumerate(tokens) if a < end and b > start and tags[i] == "O"]
        if not 0 <= start < end <= len(text) or not free:
            return "should be refused"
        for i in free:
            tags[i] = f"{'B' if i == free[0] else 'I'}-{name}"
    return tags


def _expect_vector(shares: bool, row: Sequence[float | None]) -> Any:
    """Computes a vector of several columns, or shares; None if the row has no label."""
    known = [float(v) for v in row if v is not None]
    if len(known) < len(row):
        return "should be refused" if known else None
    return [v / sum(known) for v in known] if shares else known


def is_equal(found: Sequence[Any], expected: Sequence[Any], scaled: bool) -> bool:
    """Compares rows: numbers as float32 holds them, or to 1e-5 if they are standardized."""
    if len(found) != len(expected):
        return False
    for a, b in zip(found, expected, strict=True):
        if isinstance(b, list) and b and isinstance(b[0], float):
            if a is None or len(a) != len(b):
                return False
            limit = 1e-5 if scaled else 1e-7
            if not np.allclose(a, np.float32(b), rtol=limit, atol=limit if scaled else 1e-45):
                return False
        elif a != b:
            return False
    return True


def find_difference(
    found: Mapping[str, Sequence[Any]],
    columns: Sequence[Sequence[Cell]],
    rows_of: Mapping[str, Sequence[int]],
    expect: Callable[[list[list[Any]]], list[Any]],
    scaled: bool = False,
) -> str:
    """Returns what differs from every reading of the columns; "" if all splits hold one."""
    difference = "a cell that cannot be read was accepted"
    for values in iterate_readings(columns):
        expected = expect(values)
        for split, rows in rows_of.items():
            for i, row in enumerate(rows):
                if not is_equal([found[split][i]], [expected[row]], scaled):
                    texts = [column[row].text[:40] for column in columns]
                    difference = (
                        f"row {row}: {str(found[split][i])[:150]}, not {str(expected[row])[:150]}, "
                        f"is read from {texts}"
                    )
                    break
            else:
                continue
            break
        else:
            return ""
    return difference
