"""CSV files as people write them give the numbers that pandas reads, or a refusal with the fix."""

import io
import re

import numpy as np
import pytest

import mmjax
from mmjax.config import apply_setting, auto_config
from mmjax.data import Category, DateTime, Dialect, Label, Numbers, Text, Value, from_table
from mmjax.data.load.tables.dialect import MISSING_SPELLINGS
from mmjax.data.load.tables.dialect_cells import blank_missing_cells, normalize_numbers
from mmjax.data.load.tables.table_files import read_table
from mmjax.data.spec import convert_spec_to_json, make_spec, parse_spec
from mmjax.runs.examples import iterate_examples

pandas = pytest.importorskip("pandas")
X, Y = {"x": "x"}, {"y": "y"}
GERMAN = Dialect(separator=";", decimal=",", thousands=".")


def write(folder, lines, encoding="utf-8"):
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def load(path, inputs=X, targets=Y, **options):
    return from_table({"train": path}, inputs, targets, standardize=(), **options)


def get_inputs(data, name="x"):
    batch = data.splits["train"].batch
    return np.where(batch.present[name][:, None], batch.inputs[name], np.nan)[:, 0]


@pytest.mark.parametrize(
    ("dialect", "cells"),
    [
        (GERMAN, ["1.234,5", "-0,25", "1.000.000", "3e2", "+7", ",5", "12", "4,"]),
        (Dialect("\t", ".", ","), ["1,234.5", "-0.25", "1,000", "12", "1e-3", ".5"]),
        (Dialect("|", ",", " "), ["1 234,5", "12", "0,1"]),
        (Dialect(";"), ["1.5", "-2", "1e3"]),
    ],
)
def test_numbers_are_those_of_pandas(tmp_path, dialect, cells):
    lines = [dialect.separator.join("xy"), *(f"{c}{dialect.separator}{i % 2}" for i, c in
             enumerate(cells))]  # fmt: skip
    path = write(tmp_path, lines)
    options = {"sep": dialect.separator, "decimal": dialect.decimal}
    right = pandas.read_csv(path, thousands=dialect.thousands or None, **options)["x"]
    got = get_inputs(load(path, dialect=dialect))
    np.testing.assert_allclose(got, right.to_numpy(float), rtol=1e-6)
    value = load(path, {"z": Numbers("y")}, {"y": Value("x")}, dialect=dialect)
    np.testing.assert_allclose(value.splits["train"].batch.targets["y"], right, rtol=1e-6)


def test_spellings_of_gaps_are_those_of_pandas(tmp_path, capsys):
    from pandas._libs.parsers import STR_NA_VALUES

    assert {*MISSING_SPELLINGS, ""} == set(STR_NA_VALUES)
    lines = ["x,y", *(f"{c},{i % 3}" for i, c in enumerate(["1", *MISSING_SPELLINGS, "", "2"]))]
    path = write(tmp_path, lines)
    frame = pandas.read_csv(path)
    keep = load(path, blank_rows="drop")
    assert get_inputs(keep).tolist() == frame["x"].dropna().tolist() == [1, 2]
    assert keep.facts["blank_rows"] == {"train": len(MISSING_SPELLINGS) + 1}
    printed = capsys.readouterr().err
    assert "cells of column 'x' count as empty: 1 '#N/A', " in printed
    assert f"dropped rows without any input: {len(MISSING_SPELLINGS) + 1} of 'train'" in printed
    kept = load(path, {"x": Text("x")}, blank_rows="drop", dialect=Dialect(missing=()))
    assert len(kept.splits["train"]) == len(MISSING_SPELLINGS) + 2
    own = write(tmp_path, ["x,y", "1,a", "-99,b", "3,?", "4,b"])
    data = load(own, {"x": Numbers("x")}, dialect=Dialect(missing=("-99", "?")), blank_rows="drop")
    batch = data.splits["train"].batch
    assert batch.inputs["x"][:, 0].tolist() == [1, 3, 4]
    assert batch.labeled["y"].tolist() == [True, False, True]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = write(tmp_path, ["größe,y", *(f"{i},{'äö'[i % 2]}" for i in range(6))], encoding)
    data = load(path, {"x": "größe"}, dialect=Dialect(encoding=encoding))
    assert data.tasks["y"].classes == ("ä", "ö")
    if encoding != "utf-8-sig":
        hint = "utf-16" if encoding == "utf-16" else "cp1252"
        with pytest.raises(ValueError, match=rf"line 1: not UTF-8.*encoding='{hint}'"):
            load(path, {"x": "größe"})
    path.write_bytes("x,y\n1,a\n2,b".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"t\.csv, after line \d: not utf-16"):
        load(path, dialect=Dialect(encoding="utf-16"))


REFUSED = [
    (["x;y", "1;2"], {}, r"no column 'x'.*separated by ','; give dialect=Dialect\(separator=';'\)"),
    (["x\ty", "1\t2"], {}, r"give dialect=Dialect\(separator='\\t'\)"),
    (["x,y", "1,2"], {"dialect": Dialect(";")}, r"give dialect=Dialect\(separator=','\)"),
    (['x,y', *['"1,5",a'] * 9], {}, r"line 2, column 'x': '1,5' looks like a number.*decimal=','"),
    (['x,y', *['"1,500",a', "20,b"] * 9], {}, r"line 2, column 'x': '1,500' looks like a number"),
    (['y,x', *['"1,5",3', "2,4"] * 9], {}, r"line 2, column 'y': '1,5' looks.*Label\('y'\)"),
    (["x,y", *["5%,a", "7 %,b"] * 9], {}, r"line 2, column 'x': '5%' looks like an amount"),
    (["x,y", *["$1.50,a", "3,b"] * 9], {}, r"'\$1\.50' looks like an amount.*Text\('x'\)"),
    (["x,y", *["9:30,a", "12:05:07.5,b"] * 9], {}, r"'9:30' looks like a time of day"),
    (['y,x', *['"1,5 %",3', '"2,7 %",4'] * 9], {}, r"'1,5 %' looks like an amount.*Label\('y'\)"),
    (["x,y", *["03.12.2024,a"] * 9], {}, r"'03\.12\.2024' looks like a date.*format='%d\.%m\.%Y'"),
    (["x,y", *["t.csv,a"] * 9], {}, r"'t\.csv' is a file, whose ending tells no kind"),
    (["x;y", *["1,5;a"] * 9, "1.5;b"], {"dialect": GERMAN}, r"line 11, column 'x': '1\.5' is not"),
    (["x;y", *["1,5;a"] * 9, "1.5;b"], {"dialect": GERMAN, "inputs": {"x": Numbers("x")}},
     r"line 11, column 'x': '1\.5' is not a number with the decimal sign ','"),
    (["x;y", "1,5,0;a"], {"dialect": GERMAN, "inputs": {"x": Numbers("x")}}, r"'1,5,0' is not a"),
    (["x,y", "1_000,a", "3,b"], {"inputs": {"x": Numbers("x")}}, r"'1_000' is not a number"),
    (['x,y', '"1,000",a', "3,b"], {"inputs": {"x": Numbers("x")}}, r"not a number.*thousands="),
    (["x,y", "1,a,b"], {}, r"line 2: 3 cells; the header has 2\. Quote cells"),
    (["x,y", "1,a"], {"dialect": Dialect(";;")}, r"the separator of a dialect is ';;'"),
    (["x,y", "1,a"], {"dialect": Dialect(decimal=",", thousands=",")}, r"decimal sign ','"),
    (["x,y", "1,a"], {"dialect": Dialect(thousands="ab")}, r"the thousands sign of a dialect is"),
    (["x,y", "1,a"], {"dialect": Dialect(missing="NA")}, r"give a tuple, such as \('NA',\)"),
    (["x,y", "1,a"], {"dialect": Dialect(encoding="utf-99")}, r"encoding of a dialect is 'utf-99'"),
    (["x,y", "1,a"], {"dialect": Dialect(encoding="base64")}, r"encoding of a dialect is 'base64'"),
    (["x,y", "1,a", "NA,b"], {}, r"line 3 has none .* x; 'NA' of 'x' counts .*blank_rows='drop'"),
    (["x,y", "1,a"], {"blank_rows": "keep", "inputs": {"x": Text("x")}}, r"there is one of Text"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_sure_is_refused_with_the_fix(tmp_path, lines, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, lines), **options)


def test_text_and_names_are_left_as_they_are(tmp_path):
    lines = ["t;k;y", *(f"{t};{k};{y}" for t, k, y in [("1,5 l", "2,5", "1.000"),
             ("12", "x", "2.000"), ("3,5", "x", "1.000")])]  # fmt: skip
    inputs = {"t": Text("t"), "k": Category("k", min_count=1)}
    data = load(write(tmp_path, lines), inputs, dialect=GERMAN)
    tokens = data.splits["train"].batch.inputs["t"][2, :3] - 1
    assert bytes(tokens.astype(np.uint8)) == b"3,5"
    assert data.modalities["k"].vocabulary[2:] == ("k: 2,5", "k: x")
    assert data.tasks["y"].classes == ("1000", "2000")  # all are numbers, so they sort as such


def test_blank_rows_are_kept_as_gaps_also_of_new_rows(tmp_path):
    path = write(tmp_path, ["x,y", "1,a", "NA,b", "5,a", "NA,b"])
    data = load(path, {"x": Numbers("x")}, blank_rows="keep")
    assert data.splits["train"].batch.inputs["x"].tolist() == [[1, 0], [3, 1], [5, 0], [3, 1]]
    spec = parse_spec(convert_spec_to_json(make_spec(data)))
    (batch,) = iterate_examples(spec, {"x": [2.0, None]}, 4)
    assert batch.batch.inputs["x"].tolist() == [[2, 0], [3, 1]] and batch.batch.present["x"].all()
    kept = load(path, {"x": Category("x", min_count=1)}, blank_rows="keep")
    assert kept.splits["train"].batch.inputs["x"][:, 0].tolist() == [2, 0, 3, 0]


def test_new_rows_are_read_in_the_dialect_of_training(tmp_path):
    path = write(tmp_path, ["x;d;y", *(f"{i},5;0{i + 1}.02.2024;{i % 2}" for i in range(8))])
    inputs = {"x": "x", "d": DateTime("d", format="%d.%m.%Y")}
    data = load(path, inputs, dialect=GERMAN)
    spec = parse_spec(convert_spec_to_json(make_spec(data)))
    new = tmp_path / "new.csv"
    new.write_text("id;x;d\nNA;1.234,5;01.02.2024\n7;n/a;02.02.2024\n")
    (got,) = iterate_examples(spec, new, 4)
    assert got.batch.inputs["x"][:, 0].tolist() == [1234.5, 0]
    assert got.batch.present["x"].tolist() == [True, False]
    assert got.keys == {"id": ["NA", "7"]}


def test_what_was_inferred_is_printed_once(tmp_path, capsys):
    path = write(tmp_path, ["x,t,d,y", *(f"{i},a{i},2024-01-0{i + 1},{i % 2}" for i in range(8))])
    inputs = {"x": "x", "t": "t", "d": "d"}
    for _ in range(2):
        load(path, inputs, name="told")
    line = "told: inferred from the cells: x is Numbers, t is Text, d is DateTime, y is Label\n"
    assert capsys.readouterr().err.count(line) == 1


def test_names_that_differ_in_blanks_or_case_are_reported(tmp_path):
    cells = ["a", "a ", "b", "A", "b", "c"]
    path = write(tmp_path, ["k,y,x", *(f"{c},{'uv'[i % 2]},{i}" for i, c in enumerate(cells))])
    with pytest.warns(UserWarning, match=r"column 'k' has names .* only: 'A', 'a', 'a '\. Write"):
        load(path, {"k": Category("k", min_count=1)})
    with pytest.warns(UserWarning, match=r"column 'k' has names that differ in blanks or case"):
        load(path, X, {"y": "k"})


def test_counts_and_amounts_as_classes_give_a_hint(tmp_path, capsys):
    path = write(tmp_path, ["x,n,a", *(f"{i},{i * 7},{i / 3}" for i in range(60))])
    data = load(path, X, {"n": "n"}, name="counts")
    assert data.tasks["n"].kind == "classification"
    assert "counts: target 'n' has 60 numbers for classes; if it is a count or an amount, give " \
        "Value('n') for a regression" in capsys.readouterr().err  # fmt: skip
    load(path, X, {"a": Label("a")}, name="amounts")
    assert "give Value('a') for a regression" in capsys.readouterr().err


def test_only_dialects_with_other_numbers_cost_a_pass(tmp_path):
    table = read_table(write(tmp_path, ["x,y", "1,2"]), ["x"])
    before = table.columns["x"]
    assert not blank_missing_cells(table, Dialect())
    normalize_numbers(table, ["x"], Dialect())
    assert table.columns["x"] is before


@auto_config
def experiment(path: str = "t.csv"):
    return mmjax.data.from_table(path, {"x": "x"}, {"y": "y"})


def test_a_dialect_is_set_from_the_command_line():
    config = apply_setting(experiment.as_buildable(), "dialect.separator=';'")
    assert config.dialect.separator == ";"
    config = apply_setting(experiment.as_buildable(), "dialect=Dialect(decimal=',', separator=';')")
    assert config.dialect.decimal == ","


def test_the_reader_of_csv_equals_that_of_pandas_on_quotes_and_line_breaks(tmp_path):
    text = 'x,y\n"a ""b""",1\n"c\nd",2\n"e,f",3\n'
    path = tmp_path / "t.csv"
    path.write_text(text)
    table = read_table(path, ["x", "y"])
    frame = pandas.read_csv(io.StringIO(text))
    assert table.columns["x"] == frame["x"].tolist() and table.lines == [2, 4, 5]
    assert re.search(r"t\.csv, line 4$", table.place(1))


def test_constant_and_nearly_constant_columns_are_reported_by_name(tmp_path, capsys):
    rows = [f"{i},7,{'5' if i == 3 else '4'},{'' if i < 9 else i * i},{i % 2}" for i in range(200)]
    body = Numbers(("a", "same", "nearly", "gappy"))
    path = write(tmp_path, ["a,same,nearly,gappy,y", *rows])
    for standardize, constant in (
        ((), ""),
        (None, "; 1 of 5 features are constant in train: same"),
    ):
        name = f"dull {standardize}"
        from_table({"train": path}, {"x": body}, Y, name=name, standardize=standardize)
        nearly = "1 of 5 features are nearly constant in train: nearly"
        if standardize is not None:  # then the moments are not known
            nearly = "2 of 5 features are nearly constant in train: same, nearly"
        assert f"  x  5{constant}; {nearly}\n" in capsys.readouterr().err


def test_a_class_that_only_test_has_is_named_with_the_fix(tmp_path):
    train, test = ["x,y", "1,cat", "2,dog", "3,cat"], ["x,y", "7,cat", "9,cow"]
    (tmp_path / "test.csv").write_text("\n".join(test))
    table = {"train": write(tmp_path, train), "test": tmp_path / "test.csv"}
    message = r"line 3: target 'y' is 'cow', which is none of its 2 classes: cat, dog\. .* name all"
    with pytest.raises(ValueError, match=message):
        from_table(table, X, Y)
    (tmp_path / "test.csv").write_text("x,y\n7,cat\n9,Dog ")
    with pytest.raises(ValueError, match=r"'Dog ', .* It differs from 'dog' in blanks or case onl"):
        from_table(table, X, Y)
    classes = ("cat", "dog", "cow")
    (tmp_path / "test.csv").write_text("\n".join(test))
    data = from_table(table, X, {"y": Label("y", classes)})
    assert data.splits["test"].batch.targets["y"].tolist() == [0, 2]


def test_a_data_set_is_shown_in_one_line(tmp_path):
    data = load(write(tmp_path, ["x,y", "1,a", "2,b"]))
    assert repr(data) == "<Dataset 't': 2 train; inputs x; targets y>"
    assert repr(data.splits["train"]) == "<Arrays: 2 examples>"
