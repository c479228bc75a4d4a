"""Columns of known values in the spellings that people use, for the fuzzer of tables."""

import datetime
import decimal
import random
import re
import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

ROWS = 32
TRAIN_ROWS = 12  # so many first rows are of the training split; the others are of any


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
      text: its spelling.
      meanings: the values that a reader may take it for; () if it must be refused, unless it is
        read as text.
      odd: whether its spelling is not an ordinary one of its column's kind.
    """

    text: str
    meanings: tuple[Any, ...]
    odd: bool = False


class Column(NamedTuple):
    """A column of a table: its kind, and one cell per row."""

    kind: str
    cells: list[Cell]


# What pandas takes for missing, and what people write besides.
MISSING = (
    *("", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    *("-", "--", "?", ".", " ", "n.a.", "missing", "k.A.", "#N/A N/A", "-nan"),
)
_ASCII_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_SCRIPTS = (
    "übermäßig", "e\u0301te\u0301", "été", "naïve", "Ελλάδα", "Привет", "हिन्दी", "ไทย", "我们",
    "日本語", "한국어", "עברית", "العربية", "👩‍👩‍👧", "🇩🇪", "ﬁne", "İstanbul", "ǆ", "\u200bzero",
    "\u00a0hard", "a\u202eb", "tab\tbed", "two\nlines", "carriage\r\nreturn", 'say "hi"', "it's",
    "a,b", "a;b", "a|b", "=1+1", "#5", "\\n", "C:\\x", "[1, 2", "{}", "1,5", "007", "1e3", "true",
    "2020-01-01", "x.png.txt", "long " * 40, " lead", "trail ", "NULL and void", "nan bread",
)  # fmt: skip
_NAMES = ("cat", "dog", "Äpfel", "café", "the cow", "b;c", 'a "b"', "x,y", "42", "ZZ", "Ω")


def parse_plain_number(text: str) -> float | None:
    """Returns the number of an ASCII decimal, exactly rounded; None if it is not one."""
    text = text.strip(" ")
    return float(decimal.Decimal(text)) if _ASCII_NUMBER.fullmatch(text) else None


def _draw_decimal(rng: random.Random) -> Cell:
    digits = rng.choice([0, 1, 2, 3, 6, 15])
    number = f"{rng.choice([rng.gauss(0, 1), rng.gauss(1e3, 50), rng.gauss(1.7e9, 30)]):.{digits}f}"
    spell: Callable[[str], str] = rng.choice(
        [
            *[lambda text: text] * 8,
            lambda text: f"{float(text):e}",
            lambda text: "+" + text if text[0] != "-" else text,
            lambda text: " " + text,
            lambda text: text + " ",
            lambda text: text.replace("0.", ".", 1) if text.startswith("0.") else text,
            lambda text: text + "." if "." not in text else text + "0",
        ]
    )
    text = spell(number)
    return Cell(text, (parse_plain_number(text),))


def _spell_odd_number(rng: random.Random) -> Cell:
    """Spells a number as people do, or something that is not one number."""
    whole, part = rng.randrange(1, 999), rng.randrange(100)
    value = float(f"{whole}.{part:02d}")
    spelled = {
        f"{whole},{part:02d}": value,
        f"1.{whole:03d},{part:02d}": 1000 + value,
        f"1,{whole:03d}.{part:02d}": 1000 + value,
        f"1,{whole:03d}": 1000.0 + whole,
        f"1'{whole:03d}": 1000.0 + whole,
        f"1 {whole:03d}": 1000.0 + whole,
        f"1\u00a0{whole:03d}": 1000.0 + whole,
        f"\u2212{whole}": -float(whole),
        f"({whole})": -float(whole),
        f"{whole}-": -float(whole),
        str(whole).translate({48 + i: 0xFF10 + i for i in range(10)}): float(whole),
        str(whole).translate({48 + i: 0x660 + i for i in range(10)}): float(whole),
        f"${whole}": float(whole),
        f"{whole} €": float(whole),
        f'"{whole}"': float(whole),
    }
    wrong = (
        f"1_{whole:03d}", f"{whole}%", "0x1F", "1e400", "-1e39", "inf", "-Infinity", "1d5", "12abc",
        "1.2.3", "--5", "1e", "½", "1/2", "Ⅷ", "12 kg", "=1+1", "#DIV/0!", "TRUE", "one", "1+2j",
        "5\x00", "\ufeff5", "٫5", "9" * 400, "1\n2", "<b>5</b>", "😀",
    )  # fmt: skip
    if rng.random() < 0.5:
        text = rng.choice(list(spelled))
        return Cell(text, (spelled[text],), odd=True)
    return Cell(rng.choice(wrong), (), odd=True)


def _draw_whole(rng: random.Random) -> Cell:
    value = rng.choice([rng.randrange(10), rng.randrange(-5000, 5000), rng.randrange(10**6)])
    return Cell(str(value), (float(value),))


def _draw_flag(rng: random.Random) -> Cell:
    value = rng.random() < 0.5
    return Cell(rng.choice(["true", "True", "TRUE"] if value else ["false", "False"]), (value,))


def _spell_odd_flag(rng: random.Random) -> Cell:
    spelled = {"yes": True, "no": False, "1": True, "0": False, "T": True, "n": False} | {
        "true ": True, " FALSE": False, "Y": True, "1.0": True, "on": True, "ja": True, "x": True,
    }  # fmt: skip
    text = rng.choice([*spelled, "2", "-1", "truee", "10", "maybe", "\ufefftrue", "½"])
    return Cell(text, (spelled[text],) if text in spelled else (), odd=True)


def _draw_date(rng: random.Random) -> Cell:
    day = datetime.datetime(2023, 1, 1) + datetime.timedelta(rng.randrange(700))
    if rng.random() < 0.7:
        return Cell(day.date().isoformat(), (day,))
    moment = day + datetime.timedelta(seconds=rng.randrange(86400))
    if rng.random() < 0.3:
        offset = rng.randrange(-11, 13)
        text = f"{moment.isoformat()}{'+' if offset >= 0 else '-'}{abs(offset):02d}:00"
        return Cell(text, (moment - datetime.timedelta(hours=offset),))
    return Cell(moment.isoformat(sep=rng.choice("T ")), (moment,))


def _spell_odd_date(rng: random.Random) -> Cell:
    day = datetime.datetime(2023, 1, 13) + datetime.timedelta(rng.randrange(15))
    spelled = {day.strftime(f): day for f in ("%d.%m.%Y", "%m/%d/%Y", "%Y/%m/%d", "%d %b %Y")} | {
        day.strftime("%Y%m%d"): day,
        day.strftime(" %Y-%m-%d "): day,
        day.strftime("%G-W%V-%u"): day,
        day.strftime("%Y-%m-%dT%H:%M:%SZ"): day,
    }
    seconds = rng.randrange(1_700_000_000, 1_714_000_000)
    wrong = (
        "2023-02-30", "2023-13-01", "0000-00-00", "05/06/2023", "2023-05-01 25:00", "2023", "45047",
        str(seconds), f"{seconds}000", f"{seconds}123", f"{seconds}.5", "today", "2023-5-1", "1-1",
        "1712011512345", "17120115012",
    )  # fmt: skip
    text = rng.choice([*spelled, *wrong])
    return Cell(text, (spelled[text],) if text in spelled else (), odd=True)


def _draw_text(rng: random.Random) -> Cell:
    words = rng.choices(["good", "bad", "so", "Day", "nor", "day"], k=rng.randrange(1, 5))
    if rng.random() < 0.5:
        words.append(rng.choice(_SCRIPTS))
    text = " ".join(words)
    return Cell(text, (text,))


def _spell_odd_text(rng: random.Random) -> Cell:
    text = rng.choice(
        [*_SCRIPTS, "0", "-1.5", "\x00", "a\x00b", "\ufeffx", "x" * 70_000, "\x85", '"']
    )
    return Cell(text, (text,), odd=True)


def _draw_vector(rng: random.Random) -> Cell:
    values = [round(rng.gauss(0, 9), 3) for _ in range(3)]
    form: str = rng.choice(["[{}, {}, {}]", "[{},{},{}]", "[{} {} {}]", " [ {}, {}, {} ] "])
    return Cell(form.format(*values), (values,))


def _spell_odd_vector(rng: random.Random) -> Cell:
    wrong = (
        "[1, 2]", "[1, 2, 3, 4]", "[]", "[1,, 3]", "[1, 2, null]", "[1, 2, NaN]", "[1, 2, x]", "5",
        "[1,5, 2, 3]", "[[1, 2, 3]]", "[1; 2; 3]", "[1, 2, 3", "(1, 2, 3)", "1, 2, 3", "[1,,2,3]",
        "[1, 2,, 3]", '[1, 2, "3_0"]', "[1, 2, 1e400]", "{1, 2, 3}", "[1e39 1 1]",
    )  # fmt: skip
    return Cell(rng.choice(wrong), (), odd=True)


def _draw_name(rng: random.Random) -> Cell:
    text = rng.choice(_NAMES)
    return Cell(text, (text,))


def _spell_odd_name(rng: random.Random) -> Cell:
    text = rng.choice(["Cat", "cat ", "dog\u200b", "cafe\u0301", "7", "7.0", "-1", "\x00", "1.5"])
    return Cell(text, (text,), odd=True)


def _draw_class(rng: random.Random) -> Cell:
    text = rng.choice(["1", "2", "10", "1.0", "2.0", "10.0"])
    return Cell(text, (text,))


def _spell_odd_class(rng: random.Random) -> Cell:
    text = rng.choice(["01", "1.", "1e1", "one", "1,0", "\uff11", "-2", "1_0", "true", "2.000"])
    return Cell(text, (text,), odd=True)


def _draw_bit(rng: random.Random) -> Cell:
    value = rng.randrange(2)
    return Cell(rng.choice([str(value), f"{value}.0", ["false", "True"][value]]), (value,))


def _spell_odd_bit(rng: random.Random) -> Cell:
    return Cell(rng.choice(["2", "-1", "yes", "0.5", "x", "01", "1 "]), (), odd=True)


def _draw_set(rng: random.Random) -> Cell:
    names = rng.sample(["big", "tame", "old", "süß", "a b"], rng.randrange(1, 4))
    return Cell(rng.choice([";", "; ", " ;"]).join(names), (frozenset(names),))


def _spell_odd_set(rng: random.Random) -> Cell:
    spelled: dict[str, tuple[Any, ...]] = {
        "[]": (frozenset(),),
        "big;;tame": (frozenset({"big", "tame"}),),
        "big;big": (frozenset({"big"}),),
        "big;": (frozenset({"big"}),),
        "wild": (frozenset({"wild"}),),
        "big,tame": (frozenset({"big,tame"}),),
    }
    text = rng.choice(list(spelled))
    return Cell(text, spelled[text], odd=True)


def _draw_weight(rng: random.Random) -> Cell:
    value = rng.choice([0.0, 0.5, 1.0, 2.25, 1e-6, 3e7])
    return Cell(f"{value:g}", (value,))


def _spell_odd_weight(rng: random.Random) -> Cell:
    # Of a row without a label, a weight out of range has no effect.
    wrong = {"-1": -1.0, "1e-30": 1e-30, "1e25": 1e25, "-0.5": -0.5}
    text = rng.choice([*wrong, "heavy", "1e400", "inf", "2 kg", "½"])
    return Cell(text, (wrong[text],) if text in wrong else (), odd=True)


def _draw_share(rng: random.Random) -> Cell:
    value = rng.choice([0.125, 0.25, 0.5, 1.0, 3.0])
    return Cell(str(value), (value,))


def _spell_odd_share(rng: random.Random) -> Cell:
    return Cell(rng.choice(["-0.5", "-1", "half", "50%", "1/2", "inf", "1e400"]), (), odd=True)


DRAW: dict[str, tuple[Callable[[random.Random], Cell], Callable[[random.Random], Cell]]] = {
    "number": (_draw_decimal, _spell_odd_number),
    "whole": (_draw_whole, _spell_odd_number),
    "flag": (_draw_flag, _spell_odd_flag),
    "date": (_draw_date, _spell_odd_date),
    "text": (_draw_text, _spell_odd_text),
    "vector": (_draw_vector, _spell_odd_vector),
    "name": (_draw_name, _spell_odd_name),
    "class": (_draw_class, _spell_odd_class),
    "bit": (_draw_bit, _spell_odd_bit),
    "set": (_draw_set, _spell_odd_set),
    "weight": (_draw_weight, _spell_odd_weight),
    "share": (_draw_share, _spell_odd_share),
}
# The first rows, so that every training split has two values of each column, and all classes.
FIRST_ROWS: dict[str, Sequence[Cell]] = {
    "number": (Cell("0.25", (0.25,)), Cell("1.5", (1.5,))),
    "whole": (Cell("3", (3.0,)), Cell("4", (4.0,))),
    "flag": (Cell("true", (True,)), Cell("false", (False,))),
    "date": (
        Cell("2023-02-01", (datetime.datetime(2023, 2, 1),)),
        Cell("2023-05-03", (datetime.datetime(2023, 5, 3),)),
    ),
    "text": (Cell("good day", ("good day",)), Cell("so bad", ("so bad",))),
    "vector": (Cell("[1, 2, 3]", ([1, 2, 3],)), Cell("[2, 5, 4.5]", ([2, 5, 4.5],))),
    "name": [Cell(name, (name,)) for name in _NAMES],
    "class": [Cell(name, (name,)) for name in ("1", "2", "10")],
    "bit": (Cell("0", (0,)), Cell("1", (1,))),
    "weight": (Cell("1", (1.0,)), Cell("0.5", (0.5,))),
    "share": (Cell("0.25", (0.25,)), Cell("1.0", (1.0,))),
    "set": (
        Cell("big;tame;old", (frozenset({"big", "tame", "old"}),)),
        Cell("süß;a b", (frozenset({"süß", "a b"}),)),
    ),
}


def draw_column(rng: random.Random, kind: str, gaps: float) -> Column:
    """Draws a column of ordinary cells, a share of which is empty after the first rows."""
    cells = list(FIRST_ROWS[kind])
    while len(cells) < ROWS:
        is_gap = rng.random() < gaps
        cells.append(Cell("", (None,)) if is_gap else DRAW[kind][0](rng))
    return Column(kind, cells)


def align_gaps(rng: random.Random, first: Column, second: Column) -> None:
    """Gives the second column gaps in the rows where the first one has them, and no others."""
    for r, (a, b) in enumerate(zip(first.cells, second.cells, strict=True)):
        if not a.text:
            second.cells[r] = a
        elif not b.text:
            second.cells[r] = DRAW[second.kind][0](rng)


def insert_odd_cell(
    rng: random.Random, column: Column, draw: Callable[[random.Random], Cell]
) -> None:
    """Replaces a cell by one of an odd spelling, or by what stands for a missing one.

    Args:
      rng: draws the row.
      column: the column.
      draw: draws a cell of an odd spelling.
    """
    # The training split keeps all of its classes, and the shape of the first files.
    start = len(FIRST_ROWS[column.kind]) if column.kind in ("name", "class", "set") else 0
    start = 2 if column.kind not in FIRST_ROWS else start
    row = rng.randrange(start, ROWS)
    if rng.random() < 0.3:
        text = rng.choice(MISSING[1:])
        meanings: tuple[Any, ...] = (None,)
        if column.kind in ("text", "name", "class"):
            meanings += (text,)
        if column.kind == "set":
            meanings += (frozenset({text.strip()} - {""}),)
        if column.kind == "tags":
            meanings += (text.split(),)
        column.cells[row] = Cell(text, meanings, odd=True)
    else:
        column.cells[row] = draw(rng)


def draw_parts(rng: random.Random) -> list[str]:
    """Draws the split of each row."""
    later = rng.choices(["train", "validation", "test"], k=ROWS - TRAIN_ROWS - 2)
    return ["train"] * TRAIN_ROWS + ["validation", "test", *later]


def draw_header(rng: random.Random, kinds: Sequence[str]) -> dict[str, str]:
    """Draws a name for each kind's column, with blanks, other scripts or signs in some."""
    names: dict[str, str] = {}
    for kind in kinds:
        sign = rng.choice([*string.ascii_lowercase * 2, "é", "我", " of it", "(kg)", ",", "'", "%"])
        names[kind] = f"{kind[:5]}{len(names)}{sign}"
    return names
