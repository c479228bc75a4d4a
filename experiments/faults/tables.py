"""Fuzzes tables: each gives the values that are in it, or a refusal that names what is wrong.

    python experiments/faults/tables.py --cases 5000 --seed 0

Each case draws columns of known values (numbers, truth values, dates, texts, vectors, categories,
classes, sets, shares, weights, with gaps), writes them as people do (decimal commas, thousands,
units, spellings of missing cells; separators, encodings, quoting, compression, endings; typed
columns of Parquet, .npz files, pandas, polars and Arrow), damages some, and reads them by
`from_table` or `from_arrays`. Some columns name files (images, sounds, masks, depth maps), or hold
labels or spans of a text's tokens. Not drawn are point clouds and bags of images.

What was read must equal what a slow oracle computes from the known values, or from what Python's
csv module reads; so must the rows that `mmjax predict` prepares from the same file. A refusal must
have one line that names the row, the column, the value and a fix. A good table must not be refused.
Expected: 0 failures; 5,000 cases take some minutes.
"""

import argparse
import collections
import contextlib
import functools
import io
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pyarrow
import table_files as files
import table_oracle as oracle
from table_cells import (
    DRAW,
    MISSING,
    ROWS,
    Cell,
    Column,
    align_gaps,
    draw_column,
    draw_header,
    draw_parts,
    insert_odd_cell,
)
from table_writers import Written, take_frame_columns, type_column, write_csv, write_parquet
from watch import Watch, run_cases

import mmjax
from mmjax.data import (
    Audio,
    Boolean,
    Category,
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
    from_arrays,
    from_table,
)
from mmjax.data.dataset import Dataset
from mmjax.data.kinds import get_columns
from mmjax.data.spec import make_spec
from mmjax.runs.examples import TABLE_ENDINGS, iterate_examples

KINDS = {
    "n1": "number", "n2": "number", "w": "whole", "f1": "flag", "f2": "flag", "d": "date",
    "t": "text", "c1": "name", "c2": "name", "v": "vector", "m": "name", "l": "class",
    "y": "number", "b1": "bit", "b2": "bit", "s": "set", "z": "number", "g": "weight",
    "p1": "share", "p2": "share", "i": "image", "a": "sound", "u": "words", "k": "tags",
    "q": "spans", "o": "mask", "e": "depth",
}  # fmt: skip
# Of these kinds is a column whose name alone is given.
INFERRED = {
    "number": (Numbers, Value), "whole": (Numbers,), "flag": (Boolean, Numbers),
    "vector": (Numbers,), "date": (DateTime,), "text": (Text,), "name": (Label,),
    "image": (Image,), "sound": (Audio,),
    "class": (Label, Value),  # of columns in memory, floating-point numbers are a regression
}  # fmt: skip
FRAME_INPUTS = {"body": "n1", "count": "w", "flags": "f1", "note": "t", "place": "v"}
FRAME_TARGETS = {"mood": "m", "stars": "l", "income": "y"}
NO_FILES = files.Pool([Cell("none.png", ("unused",))] * 2, [])
MAX_ODD = 0.1  # more odd cells make a column one of text, or of classes


class WrongValueError(Exception):
    """A value that is not what the table says."""


class UnclearError(Exception):
    """A refusal that does not say what is wrong, or of a good table."""


class Case(NamedTuple):
    """A table, and how it is to be read.

    Attributes:
      columns: {short name: the cells that were drawn}.
      names: {short name: name in the file}.
      parts: the split of each row.
      inputs: {modality: kind, or name of a column}.
      targets: {task: kind, or name of a column}.
      options: of `from_table` or `from_arrays`.
      files: {kind: the cells of its files}.
    """

    columns: dict[str, Column]
    names: dict[str, str]
    parts: list[str]
    inputs: dict[str, Any]
    targets: dict[str, Any]
    options: dict[str, Any]
    files: dict[str, files.Pool]

    def list_used(self) -> list[str]:
        """Lists the short names of the columns that are read."""
        weights = self.options.get("weights", {})
        specs = [*self.inputs.values(), *self.targets.values(), *weights.values()]
        used = {name for spec in specs for name in get_columns(spec)}
        return [short for short, name in self.names.items() if name in used]


def draw_case(rng: random.Random, folder: Path) -> Case:
    """Draws a table with odd cells in two of three, and the kinds to read it as.

    Args:
      rng: draws it.
      folder: where files that its cells name are written.
    """
    names = draw_header(rng, list(KINDS))
    inputs = draw_inputs(rng, names)
    targets = draw_targets(rng, names)
    if {"words", "people"} & targets.keys():
        inputs["speech"] = Text(names["u"], level="word")
    specs = [*inputs.values(), *targets.values()]
    used_names = {name for spec in specs for name in get_columns(spec)}
    gaps = rng.choice([0, 0.1]) if len(inputs) > 2 else 0
    columns, pools = {}, dict[str, files.Pool]()
    for short, kind in KINDS.items():
        if kind in files.WRITE:
            # Of a column that nobody reads, no files are needed.
            is_used = names[short] in used_names
            pools[kind] = files.WRITE[kind](rng, folder) if is_used else NO_FILES
            columns[short] = files.draw_pool_column(rng, kind, pools[kind], gaps)
        elif short not in ("u", "k", "q"):
            columns[short] = draw_column(rng, kind, 0 if kind == "weight" else gaps)
    columns["u"], columns["k"], columns["q"] = files.draw_sentences(rng, gaps)
    if getattr(inputs.get("note"), "level", "byte") == "word":
        columns["t"] = Column("text", draw_ascii_texts(rng, ROWS))
    columns = {short: columns[short] for short in KINDS}  # in the order of the header
    for first, second in (("y", "z"), ("p1", "p2")):
        align_gaps(rng, columns[first], columns[second])  # else the row is refused
    options = {"standardize": rng.choice([(), (), None]), "in_memory": rng.random() < 0.6}
    if rng.random() < 0.25:
        options["weights"] = {rng.choice(list(targets)): names["g"]}
    case = Case(columns, names, draw_parts(rng), inputs, targets, options, pools)
    is_ascii_only = getattr(inputs.get("note"), "level", "byte") == "word"
    # Another text would change the number of its tokens.
    fixed = {"u", "t"} if is_ascii_only else {"u"}
    used = [short for short in case.list_used() if short not in fixed]
    for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 3]) if used else 0):
        short = rng.choice(used)
        for _ in range(rng.choice([1, 1, 1, 1, 2, 4, 12])):  # many of one kind, too
            insert_odd_cell(rng, columns[short], draw_odd_cell(case, columns[short].kind))
    return case


def draw_odd_cell(case: Case, kind: str) -> Callable[[random.Random], Cell]:
    """Returns the function that draws an odd cell of a kind."""
    if kind in case.files:
        return lambda rng: rng.choice(case.files[kind].odd)
    others = {"tags": files.draw_odd_tags, "spans": files.draw_odd_spans}
    return others[kind] if kind in others else DRAW[kind][1]


def draw_ascii_texts(rng: random.Random, size: int) -> list[Cell]:
    """Draws texts whose words a plain pattern finds."""
    draw, cells = DRAW["text"][0], list[Cell]()
    while len(cells) < size:
        cell = draw(rng)
        if cell.text.isascii():
            cells.append(cell)
    return cells


def draw_inputs(rng: random.Random, names: Mapping[str, str]) -> dict[str, Any]:
    """Draws one to nine modalities, some of which are inferred."""
    n1, n2, f1, f2, c1, c2 = (names[k] for k in ("n1", "n2", "f1", "f2", "c1", "c2"))
    fill = rng.choice(["mean", "median"])
    choices: dict[str, list[Any]] = {
        "body": [Numbers((n1, n2), fill=fill), Numbers((n1, n2)), Numbers(n1), n1],
        "count": [Numbers(names["w"]), names["w"]],
        "flags": [Boolean((f1, f2)), Boolean(f1), f1],
        "day": [DateTime(names["d"]), DateTime(names["d"], parts=("linear", "year")), names["d"]],
        "note": [
            *[Text(names["t"]), Text(names["t"], longest=7), Text(names["t"], level="word")],
            names["t"],
        ],
        "sort": [Category((c1, c2)), Category(c1, min_count=1)],
        "place": [Numbers(names["v"]), names["v"]],
        "photo": [Image(names["i"]), names["i"]],
        "voice": [Audio(names["a"]), Audio(names["a"], longest=3, mels=20), names["a"]],
    }
    chosen = rng.sample(list(choices), rng.randrange(1, len(choices) + 1))
    return {m: rng.choice(choices[m]) for m in chosen}


def draw_targets(rng: random.Random, names: Mapping[str, str]) -> dict[str, Any]:
    """Draws one to eleven tasks."""
    choices: dict[str, list[Any]] = {
        "mood": [Label(names["m"]), names["m"]],
        "stars": [
            *[Label(names["l"]), Label(names["l"], classes=("1", "2", "10"), ordered=True)],
            names["l"],
        ],
        "income": [Value(names["y"]), names["y"]],
        "bits": [Labels((names["b1"], names["b2"]))],
        "tags": [LabelSet(names["s"])],
        "spot": [Value((names["y"], names["z"])), Value(names["v"])],
        "parts": [Shares((names["p1"], names["p2"]))],
        "words": [TokenLabels(names["k"])],
        "people": [Spans((names["q"], names["u"]))],
        "road": [Mask(names["o"], files.CLASSES)],
        "far": [DepthMap(names["e"], scale=files.DEPTH_SCALE)],
    }
    chosen = rng.sample(list(choices), rng.randrange(1, len(choices) + 1))
    return {t: rng.choice(choices[t]) for t in chosen}


def list_header(case: Case) -> list[str]:
    """Lists the names in the file; unused columns are there, too."""
    return ["part", *case.names.values()]


def write_text_table(rng: random.Random, case: Case, folder: Path) -> tuple[Written, list[Case]]:
    """Writes a CSV file; returns the tables that it may be taken for, the meant one first."""
    cells = [[column.cells[r].text for column in case.columns.values()] for r in range(ROWS)]
    rows = [list_header(case), *([case.parts[r], *cells[r]] for r in range(ROWS))]
    damage: tuple[str, ...] = ()
    if rng.random() < 0.03:
        rows[0][rng.randrange(len(rows[0]))] = rng.choice(rows[0])
        damage = ("two columns of one name",)
    written = write_csv(rng, rows, folder)
    written = written._replace(damage=damage + written.damage)
    return written, [case_of_rows(case, reading) for reading in written.readings]


def case_of_rows(case: Case, rows: list[list[str]]) -> Case:
    """Returns the case with the cells of the rows that somebody read from its file."""
    header, body = rows[0], rows[1:]
    columns = {}
    for short, name in case.names.items():
        column = case.columns[short]
        cells = []
        for r, row in enumerate(body):
            text = row[header.index(name)] if header.count(name) == 1 else ""
            is_same = r < len(column.cells) and column.cells[r].text == text
            cells.append(column.cells[r] if is_same else read_cell(case, column.kind, text))
        columns[short] = Column(column.kind, cells)
    parts = [row[header.index("part")] for row in body] if "part" in header else []
    return case._replace(columns=columns, parts=parts)


def read_cell(case: Case, kind: str, text: str) -> Cell:
    """Returns the cell of a text that is not the one that was drawn."""
    if kind not in case.files or not text:
        return oracle.read_literally(kind, text)
    known = [*case.files[kind].ordinary, *case.files[kind].odd]
    return next((cell for cell in known if cell.text == text), Cell(text, ()))


def write_typed_table(rng: random.Random, case: Case, folder: Path) -> tuple[Written, list[Case]]:
    """Writes Parquet, whose columns are typed or text."""
    arrays, columns = {"part": case.parts}, {}
    for short, column in case.columns.items():
        if rng.random() < 0.75:
            arrays[case.names[short]], cells = type_column(rng, column)
            columns[short] = Column(column.kind, cells)
        else:
            arrays[case.names[short]] = [cell.text or None for cell in column.cells]
            columns[short] = column
    typed = case._replace(columns=columns)
    return write_parquet(rng, arrays, folder), [typed]


def make_frame_case(rng: random.Random, case: Case) -> tuple[Case, dict[str, dict[str, Any]]]:
    """Returns the case of single columns in memory, and these columns per split."""
    shorts = {m: s for m, s in FRAME_INPUTS.items() if m in case.inputs} or {"body": "n1"}
    goals = {t: s for t, s in FRAME_TARGETS.items() if t in case.targets} or {"mood": "m"}
    arrays, columns = {}, {}
    for short in {*shorts.values(), *goals.values()}:
        array, cells = type_column(rng, case.columns[short])
        if pyarrow.types.is_decimal(array.type):
            array = array.cast(pyarrow.float64())
        if pyarrow.types.is_string_view(array.type):
            array = array.cast(pyarrow.string())
        arrays[case.names[short]], columns[short] = array, Column(KINDS[short], cells)
    form = rng.randrange(5)
    parts = {s: take_frame_columns(form, arrays, r) for s, r in group_rows(case.parts).items()}
    names = {short: case.names[short] for short in columns}
    inputs = {names[short]: names[short] for short in shorts.values()}
    targets = {names[short]: names[short] for short in goals.values()}
    options = {"standardize": case.options["standardize"]}
    parts_case = case._replace(columns=columns, names=names, inputs=inputs, targets=targets)
    return parts_case._replace(options=options), parts


def check_frames(
    case: Case, parts: Mapping[str, Mapping[str, Any]], counts: collections.Counter[str]
) -> None:
    """Reads columns in memory, and compares them with the oracle."""
    standardize = case.options["standardize"]
    try:
        data = from_arrays(parts, list(case.inputs), list(case.targets), standardize=standardize)
    except ValueError as error:
        check_refusal(str(error), case, None)
        raise
    # No kind is inferred: texts are texts, and all else is numbers.
    kinds = {
        m: Text(m) if select_columns(case, m)[0].kind == "text" else Numbers(m) for m in case.inputs
    }
    check_inputs(case._replace(inputs=kinds), data, counts)
    check_targets(case, data, counts)


def group_rows(parts: Sequence[str]) -> dict[str, list[int]]:
    """Returns the rows of each split."""
    rows_of: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        rows_of.setdefault(part, []).append(row)
    return rows_of


def select_columns(case: Case, spec: Any) -> list[Column]:
    """Selects the columns that a kind reads."""
    short_of = {name: short for short, name in case.names.items()}
    return [case.columns[short_of[name]] for name in get_columns(spec)]


def check_inferred(case: Case, spec: Any, kind: type, train: Sequence[int]) -> bool:
    """Checks the kind that was inferred for a column; returns whether it is read as text.

    Raises:
      WrongValueError: if most cells are of another kind.
    """
    column = select_columns(case, spec)[0]
    expected = INFERRED[column.kind]
    if kind in expected:
        return False
    filled = [cell for r in train if (cell := column.cells[r]).text]
    odd = [cell for cell in filled if cell.odd]
    if len(odd) <= MAX_ODD * len(filled):
        texts = [cell.text[:20] for cell in odd]
        raise WrongValueError(f"a column of {column.kind} with {texts} became {kind.__name__}")
    return True


def check_inputs(case: Case, data: Dataset, counts: collections.Counter[str]) -> None:
    """Compares all modalities with the oracle."""
    rows_of = group_rows(case.parts)
    train = rows_of["train"]
    for m, given in case.inputs.items():
        preparation = data.preparations[m]
        spec = given if preparation.kind is None else preparation.kind
        columns = select_columns(case, spec)
        if isinstance(given, str) and check_inferred(case, given, type(spec), train):
            counts[f"{columns[0].kind} read as text, as was printed"] += 1
            columns = [
                column._replace(cells=oracle.read_as_text(column.cells)) for column in columns
            ]
        found = {s: oracle.read_input(data, s, m) for s in rows_of}
        scaled = preparation.scale is not None
        expect = functools.partial(oracle.expect_input, spec, train, scaled)
        if isinstance(spec, Text | Category):
            expect = functools.partial(oracle.name_tokens, spec, train)
        cells = [column.cells for column in columns]
        is_near = scaled or isinstance(spec, Audio)
        if difference := oracle.find_difference(found, cells, rows_of, expect, is_near):
            raise WrongValueError(f"{m!r} as {type(spec).__name__}, {difference}")


def check_targets(case: Case, data: Dataset, counts: collections.Counter[str]) -> None:
    """Compares all targets with the oracle."""
    rows_of = group_rows(case.parts)
    for t, given in case.targets.items():
        task = data.tasks[t]
        spec = given
        columns = select_columns(case, given)
        if isinstance(given, str):
            spec = Value(given) if task.kind == "regression" else Label(given)
            if check_inferred(case, given, type(spec), rows_of["train"]):
                counts[f"{columns[0].kind} read as classes, as was printed"] += 1
                columns = [c._replace(cells=oracle.read_as_text(c.cells)) for c in columns]
        found = {s: oracle.read_target(data, s, t) for s in rows_of}
        expect = functools.partial(oracle.expect_target, spec, task.classes)
        cells = [column.cells for column in columns]
        if difference := oracle.find_difference(found, cells, rows_of, expect):
            raise WrongValueError(f"target {t!r} as {type(spec).__name__}, {difference}")


def check_weights(case: Case, data: Dataset) -> None:
    """Compares the weights of labels with the table."""
    for task, name in case.options.get("weights", {}).items():
        cells = select_columns(case, name)[0].cells
        for split, rows in group_rows(case.parts).items():
            values = [cells[r].meanings[0] if cells[r].meanings else None for r in rows]
            if difference := oracle.find_wrong_weight(data, task, split, values):
                raise WrongValueError(f"weight of {task!r}, {split}, {difference}")


def check_new_rows(path: Path, data: Dataset, parts: Sequence[str]) -> None:
    """Prepares the file's rows as `mmjax predict` does, and compares them with the data set."""
    spec, start, rows_of = make_spec(data), 0, group_rows(parts)
    position = {row: (s, i) for s, rows in rows_of.items() for i, row in enumerate(rows)}
    whole = {s: data.splits[s].take(np.arange(len(rows))) for s, rows in rows_of.items()}
    if path.suffix not in TABLE_ENDINGS:
        return
    for batch, _ in iterate_examples(spec, path, 13):
        for m in data.modalities:
            for i in range(batch.size):
                split, row = position[start + i]
                same = np.array_equal(batch.present[m][i], whole[split].present[m][row])
                if not same or not np.array_equal(batch.inputs[m][i], whole[split].inputs[m][row]):
                    raise WrongValueError(f"row {start + i} of {m!r} is another one in prediction")
        start += batch.size
    if start != len(parts):
        raise WrongValueError(f"prediction reads {start} rows of {len(parts)}")


FIXES = (
    "leave", "give", "name", "correct", "convert", "rescale", "fill", "store", "must", "add",
    "write", "need", "save", "rename", "every", "it has", "the header has",
)  # fmt: skip


def check_refusal(message: str, case: Case, written: Written | None) -> None:
    """Raises UnclearError if a refusal is not clear, or the table is good."""
    rows_of = group_rows(case.parts)
    used = case.list_used()
    odd = []
    for short in used:
        cells = case.columns[short].cells
        rows = [r for r, cell in enumerate(cells) if cell.odd]
        train = [r for r in rows if r in rows_of.get("train", ())]
        # Many odd cells make a column one of classes, of which an ordinary cell may be none.
        odd += [(short, r) for r in (range(len(cells)) if len(train) > 1 else rows)]
    odd += list_refused_cells(case)
    damage = written.damage if written else ()
    if not odd and not damage and not has_empty_row(case):
        raise UnclearError(f"a good table is refused: {message}")
    if written and damage:
        if str(written.path) not in message and "split" not in message:
            raise UnclearError(f"no file: {message}")
        return
    if not any(word in message for word in FIXES):
        raise UnclearError(f"no fix: {message}")
    lines = written.lines if written else []
    if (
        odd
        and not has_empty_row(case)
        and not any(names_cell(message, case, lines, rows_of, *place) for place in odd)
    ):
        raise UnclearError(f"no place, column or value of {odd[:4]}: {message}")


def list_refused_cells(case: Case) -> list[tuple[str, int]]:
    """Lists empty cells of rows that have the other cells, and weights that no label may have."""
    short_of = {name: short for short, name in case.names.items()}
    groups = [get_columns(x) for x in case.targets.values() if isinstance(x, Value | Shares)]
    refused = []
    for row in range(len(case.parts)):
        for names in groups:
            cells = {short_of[n]: case.columns[short_of[n]].cells[row] for n in names}
            empty = [short for short, cell in cells.items() if None in cell.meanings]
            refused += [(short, row) for short in empty] if len(empty) < len(names) else []
        for name in case.options.get("weights", {}).values():
            short = short_of[name]
            values = case.columns[short].cells[row].meanings
            refused += [(short, row)] if any(map(oracle.is_bad_weight, values)) else []
    return refused


def names_cell(
    message: str,
    case: Case,
    lines: Sequence[int],
    rows_of: Mapping[str, Sequence[int]],
    short: str,
    row: int,
) -> bool:
    """Checks whether a message names the row, the column and the value of an odd cell."""
    name, text = case.names[short], case.columns[short].cells[row].text
    parts = {**case.inputs, **case.targets}
    users = [repr(user) for user, spec in parts.items() if name in get_columns(spec)]
    users += [repr(t) for t, column in case.options.get("weights", {}).items() if name == column]
    place = f"line {lines[row]}" if lines else f"row {row}"
    places = [f"{place},", f"{place}:", f"{place};"]
    places += [f"row {r.index(row)} of '{s}'" for s, r in rows_of.items() if row in r]
    shown = text.strip()[:20]
    values = {repr(text)[1:21].rstrip("'\""), shown, repr(shown)[1:-1]}
    values |= {repr(oracle.normalize_class(text)), repr(text.encode())}
    if None in case.columns[short].cells[row].meanings:
        values |= {"is empty", "is missing"}
    for meaning in case.columns[short].cells[row].meanings:
        values |= {repr(name) for name in meaning} if isinstance(meaning, frozenset) else set()
        values |= {repr(meaning)} if isinstance(meaning, float) else set()
        values |= (
            {repr(v)[:20] for v in [meaning, *meaning]} if isinstance(meaning, list) else set()
        )
    return (
        any(place in message for place in places)
        and (repr(name) in message or any(user in message for user in users))
        and (any(value in message for value in values) or "shape" in message or "beyond" in message)
    )


def has_empty_row(case: Case) -> bool:
    """Checks whether a row may have no modality at all."""
    specs = list(case.inputs.values())
    columns = [column.cells for spec in specs for column in select_columns(case, spec)]
    return any(
        all(cells[r].text in MISSING or not cells[r].text.strip() for cells in columns)
        for r in range(len(case.parts))
    )


def check_table(written: Written, cases: Sequence[Case], counts: collections.Counter[str]) -> None:
    """Reads a table, and compares it with what it may be taken for.

    Raises:
      WrongValueError: if a value differs from all of them.
      UnclearError: if a refusal is not clear.
      ValueError: the refusal, if it is.
    """
    case = cases[0]
    options = {"split": "part", **case.options}
    try:
        data = from_table(written.path, case.inputs, case.targets, **options)
    except ValueError as error:
        check_refusal(str(error), case, written)
        raise
    reasons = []
    for reading in cases:
        sizes = {s: len(rows) for s, rows in group_rows(reading.parts).items()}
        if sizes != {s: len(source) for s, source in data.splits.items()}:
            reasons.append(f"other rows: {sizes}")
            continue
        try:
            check_inputs(reading, data, counts)
            check_targets(reading, data, counts)
            check_weights(reading, data)
            check_new_rows(written.path, data, reading.parts)
        except WrongValueError as error:
            reasons.append(str(error))
        else:
            return
    raise WrongValueError(f"{written.damage}: {reasons or 'it should not be readable'}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    watch = Watch((Path(mmjax.__file__).parent, Path(__file__).parent))
    counts: collections.Counter[str] = collections.Counter()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run_case(index: int) -> None:
            number = options.start + index
            rng = random.Random(f"{options.seed} {number}")  # a case can be run alone
            case = draw_case(rng, folder)
            kind = rng.choice(["csv"] * 5 + ["parquet", "parquet", "frames"])
            counts[f"cases of {kind}"] += 1
            if kind == "frames":
                case, parts = make_frame_case(rng, case)
                title, check = "", functools.partial(check_frames, case, parts, counts)
            else:
                write = write_text_table if kind == "csv" else write_typed_table
                written, cases = write(rng, case, folder)
                title = ", ".join(written.damage)
                check = functools.partial(check_table, written, cases or [case], counts)
            with (
                contextlib.redirect_stderr(io.StringIO()),
                watch.case(f"case {number}, {kind}, {title}", (ValueError,)),
            ):
                check()
            for path in folder.iterdir():
                path.rmdir() if path.is_dir() else path.unlink()

        run_cases(options.cases, run_case)
    for label, count in sorted(counts.items()):
        print(f"{count:6,}  {label}")
    return watch.report(f"tables, seed {options.seed}")


if __name__ == "__main__":
    sys.exit(main())
