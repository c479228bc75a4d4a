"""Files of the tables that the fuzzer draws: dialects, encodings, compression, types, damage."""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import lzma
import random
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
from pyarrow import parquet
from table_cells import Cell, Column

Rows = list[list[str]]


class Written(NamedTuple):
    """A file, and what may be read from it.

    Attributes:
      path: the file.
      readings: the rows of text, with the header, that a reader may take it for: those that were
        meant, and those of the csv module.
      lines: the line on which each row ends, by the csv module.
      damage: what was done to it; () if it is an ordinary file.
    """

    path: Path
    readings: list[Rows]
    lines: list[int]
    damage: tuple[str, ...] = ()


def parse_csv(text: str, delimiter: str = ",") -> tuple[Rows, list[int]] | None:
    """Reads rows by the csv module; None if they are not a table."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # as files have them, whatever "\r" is
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    rows, ends = [], []
    try:
        for row in reader:
            if row:
                rows.append(row)
                ends.append(reader.line_num)
    except csv.Error:
        return None
    return (rows, ends) if rows and len({len(row) for row in rows}) == 1 else None


def write_csv(rng: random.Random, rows: Rows, folder: Path) -> Written:
    """Writes rows, mostly in the dialect of RFC 4180 and UTF-8."""
    damage = []
    delimiter = rng.choice([","] * 14 + [";", "\t", "|"])
    end = rng.choice(["\n"] * 6 + ["\r\n"] * 3 + ["\r"] * (rng.random() < 0.2))
    encoding = rng.choice(
        ["utf-8"] * 14 + ["utf-8-sig"] * 3 + ["utf-16", "utf-16-le", "latin-1", "cp1252", "gb18030"]
    )
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows(rows)
    text = stream.getvalue()
    if encoding not in ("utf-8", "utf-8-sig"):
        damage.append(encoding)
        text = text.encode(encoding, "replace").decode(encoding)
    if delimiter != ",":
        damage.append(f"separator {delimiter!r}")
    if end == "\r":
        damage.append("line ends of old Macintoshes")
    meant = parse_csv(text if end != "\r" else text.replace("\r", "\n"), delimiter)
    if rng.random() < 0.2:
        kind, text = _damage_text(rng, text, end, delimiter)
        damage += [kind] if kind else []
    content = text.encode(encoding)
    if content and rng.random() < 0.04:
        damage.append("cut off")
        content = content[: rng.randrange(len(content) // 2, len(content))]
    if content and rng.random() < 0.03:
        damage.append("damaged bytes")
        place = rng.randrange(len(content))
        content = content[:place] + bytes([rng.randrange(128, 256)]) + content[place + 1 :]
    try:
        literal = parse_csv(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        literal = None
    content, packing = _compress(rng, content)
    path = (
        folder / f"table{rng.choice(['.csv'] * 8 + ['.txt', '.tsv', '', '.data', '.CSV', '.gz'])}"
    )
    if rng.random() < 0.01:
        path, packing = folder / rng.choice(["table.parquet", "table.pq"]), "wrong ending"
    path.write_bytes(content)
    readings = [] if damage and damage[-1] in _LOSSES else [meant[0]] if meant else []
    if literal and literal[0] not in readings:
        readings.append(literal[0])
    lines = (literal or meant or ([], []))[1]
    return Written(path, readings, lines[1:], (*damage, *([packing] if packing else [])))


_LOSSES = ("cut off", "damaged bytes", "quote lost", "row cut")


def _damage_text(rng: random.Random, text: str, end: str, delimiter: str) -> tuple[str, str]:
    """Damages the lines of a table; returns what was done, "" if nothing should come of it."""
    lines = text.split(end)
    index = rng.randrange(len(lines))
    line = lines[index]
    match rng.randrange(12):
        case 0:
            lines[index : index + 1] = [line, ""]
            # Within a quoted cell, an empty line is a part of the cell.
            kind = "" if text.count('"') == 0 else "empty line"
        case 1:
            lines[index], kind = line + delimiter, "cell too many"
        case 2:
            lines[index], kind = line[: len(line) // 2], "row cut"
        case 3:
            lines[index], kind = '"' + line, "quote too many"
        case 4:
            lines[index], kind = line.replace('"', "", 1), "quote lost" if '"' in line else ""
        case 5:
            lines[0], kind = lines[0].replace(delimiter, f"{delimiter} "), "blanks in header"
        case 6:
            lines, kind = lines[1:], "no header"
        case 7:
            lines.insert(0, rng.choice(["# made by hand", "sep=,", "Table 1", ";;;"]))
            kind = "line before header"
        case 8:
            lines.insert(index, lines[0])
            kind = "second header"
        case 9:
            lines = [part + delimiter for part in lines[:-1]] + lines[-1:]
            kind = "empty column"
        case 10:
            lines[index], kind = line.replace(delimiter, ";", 1), "row cut"
        case _:
            lines, kind = lines[: rng.randrange(2)], "no rows"
    return kind, end.join(lines)


def _compress(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Compresses a file in some cases; returns what is wrong with it, or ""."""
    draw = rng.random()
    if draw < 0.85:
        return content, ""
    pack = rng.choice([gzip.compress, bz2.compress, lzma.compress])
    if draw < 0.95:
        return pack(content), ""
    if draw < 0.98:
        packed = pack(content)
        return packed[: rng.randrange(7, len(packed))], "cut off archive"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("table.csv", content)
    return file.getvalue(), "zip archive"


def type_column(rng: random.Random, column: Column) -> tuple[Any, list[Cell]]:
    """Makes a typed column of Arrow of the meanings, and the cells that it then has."""
    cells, kind, make = column.cells, column.kind, pyarrow.array
    values = [c.meanings[0] if c.meanings else None for c in cells]
    if kind in ("weight", "share"):
        array = make(values, pyarrow.float64())
    elif kind in ("number", "whole"):
        choices = ["float64", "float32", "NaN", "decimal"]
        is_whole = kind == "whole" and all(v is None or v == round(v) for v in values)
        choice = rng.choice(choices + ["int64", "int32"] * is_whole)
        if choice == "float32":
            values = [None if v is None else float(np.float32(v)) for v in values]
            array = make(values, pyarrow.float32())
        elif choice == "decimal":
            values = [None if v is None else round(v, 6) for v in values]
            array = make(
                [None if v is None else decimal.Decimal(f"{v:.6f}") for v in values],
                pyarrow.decimal128(38, 6),
            )
        elif choice == "NaN":
            array = make([np.nan if v is None else v for v in values])
        else:
            whole = choice.startswith("int")
            array = make([None if v is None else int(v) if whole else v for v in values])
            array = array.cast(choice)
    elif kind == "date":
        unit = rng.choice(["us", "ns", "ms", "tz", "day"])
        values = [None if v is None else v.replace(microsecond=0) for v in values]
        if unit == "day":
            values = [
                None if v is None else datetime.datetime.combine(v.date(), datetime.time())
                for v in values
            ]
            array = make(values, pyarrow.timestamp("us")).cast(pyarrow.date32())
        elif unit == "tz":
            array = make(values, pyarrow.timestamp("us", tz="UTC"))
            array = array.cast(pyarrow.timestamp("us", tz="Asia/Tokyo"))
        else:
            array = make(values, pyarrow.timestamp(unit))
    elif kind == "tags":
        array = make(values, pyarrow.list_(pyarrow.string()))
    elif kind in ("spans", "image", "sound", "mask", "depth"):
        return make([c.text or None for c in cells], pyarrow.string()), list(cells)
    elif kind in ("text", "words", "name", "class"):
        array = make([None if v in (None, "") else v for v in values], pyarrow.string())
        kinds = [pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(), None]
        cast = rng.choice(kinds)
        array = array.dictionary_encode() if cast is None else array.cast(cast)
        if kind == "class" and all(
            v in (None, "1", "2", "10", "1.0", "2.0", "10.0") for v in values
        ):
            numbers = [None if v is None else float(v) for v in values]
            array = rng.choice([array, make(numbers), make(numbers).cast(pyarrow.int16())])
    elif kind == "set":
        array = make(
            [None if v is None else sorted(v) for v in values], pyarrow.list_(pyarrow.string())
        )
    elif kind == "vector":
        of = rng.choice([pyarrow.list_(pyarrow.float64()), pyarrow.list_(pyarrow.float64(), 3)])
        rows = [None if v is None or len(v) != 3 else [float(x) for x in v] for v in values]
        values, array = rows, make(rows, of)
    elif kind == "bit":
        array = make([None if v is None else int(v) for v in values])
        array = rng.choice([array, array.cast(pyarrow.bool_()), array.cast(pyarrow.float32())])
    else:
        array = make(values)
    typed = []
    for cell, value in zip(cells, values, strict=True):
        # A number is ordinary, however it was spelled; a name is not.
        odd = cell.odd and kind in ("name", "class", "set", "tags") and value is not None
        typed.append(Cell("" if value is None else str(value), (value,), odd))
    return array, typed


def write_parquet(rng: random.Random, arrays: Mapping[str, Any], folder: Path) -> Written:
    """Writes typed columns, in half of the cases with another ending or damage."""
    path = folder / f"table{rng.choice(['.parquet'] * 6 + ['.pq', '.csv', '', '.data'])}"
    table = pyarrow.table(dict(arrays))
    groups = rng.choice([None, 5, 1])
    packing = rng.choice(["snappy", "gzip", "brotli", "zstd", "none"])
    parquet.write_table(table, path, row_group_size=groups, compression=packing)
    if rng.random() > 0.06:
        return Written(path, [], [])
    content = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        del content[rng.randrange(5, len(content)) :]
        damage = "cut off"
    else:
        content[-rng.randrange(1, 9)] ^= 0x55  # of the length of the footer, or of its mark
        damage = "damaged footer"
    path.write_bytes(content)
    return Written(path, [], [], (damage,))


def take_frame_columns(form: int, arrays: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Takes rows as columns of pandas (in three kinds of types), polars or Arrow."""
    table = pyarrow.table(dict(arrays)).take(pyarrow.array(rows, pyarrow.int64()))
    match form:
        case 0:
            frame = table.to_pandas()
        case 1:
            frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        case 2:
            frame = table.to_pandas().convert_dtypes()
        case 3:
            frame = pl.from_arrow(table)
        case _:
            return {name: table.column(name) for name in table.column_names}
    return {name: frame[name] for name in frame.columns}
