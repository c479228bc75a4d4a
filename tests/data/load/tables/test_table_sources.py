"""DataFrames, dictionaries and several files give what one CSV file of the same cells gives."""

import datetime

import jax
import numpy as np
import pytest

from mmjax.data import Boolean, Category, DateTime, Label, Numbers, Split, Text, from_table
from mmjax.data.load.tables.sources import read_sources
from mmjax.data.load.tables.table_files import read_table

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")

NUMBER = 24
CELLS = {
    "size": [None if i == 5 else 150 + i / 7 for i in range(NUMBER)],
    "count": [None if i == 6 else i for i in range(NUMBER)],
    "note": [None if i == 7 else f"note {i}" for i in range(NUMBER)],
    "pet": [None if i == 8 else ["cat", "dog"][i % 2] for i in range(NUMBER)],
    "tame": [None if i == 9 else i % 3 == 0 for i in range(NUMBER)],
    "day": [datetime.datetime(2024, 1, 1 + i, 8, 30) for i in range(NUMBER)],
    "y": [f"class {i % 3}" for i in range(NUMBER)],
}
INPUTS = {"body": Numbers(("size", "count")), "note": "note", "pet": Category("pet")} | {
    "tame": Boolean("tame"),
    "day": DateTime("day"),
}


def make_pandas():
    frame = pandas.DataFrame(CELLS, index=range(100, 100 + NUMBER))
    dtypes = {"count": "Int64", "note": "string", "pet": "category", "tame": "boolean"}
    return frame.astype(dtypes | {"size": "Float64"})


FRAMES = {
    "pandas": make_pandas,
    "pandas objects": lambda: pandas.DataFrame(CELLS).astype({"count": object}),
    "pyarrow backed": lambda: pandas.DataFrame(CELLS).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda: polars.DataFrame(CELLS),
    "polars lazy": lambda: polars.DataFrame(CELLS).lazy(),
    "pyarrow": lambda: pyarrow.table(CELLS),
    "lists": lambda: CELLS,
    "arrays": lambda: {
        **CELLS,
        "size": np.array([np.nan if c is None else c for c in CELLS["size"]]),
        "day": np.array(CELLS["day"], "datetime64[s]"),
        "y": np.array(CELLS["y"]),
    },
}


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    pandas.DataFrame(CELLS).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def right(csv):
    return from_table(csv, INPUTS, {"y": "y"}, seed=3)


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_equal_their_csv(kind, right):
    data = from_table(FRAMES[kind](), INPUTS, {"y": "y"}, seed=3)
    assert (data.modalities, data.tasks) == (right.modalities, right.tasks)
    for split, source in data.splits.items():
        jax.tree.map(np.testing.assert_array_equal, source.batch, right.splits[split].batch)


@pytest.mark.filterwarnings("ignore:.*have the same inputs")
def test_frames_as_splits_and_inferred_kinds(capsys):
    frame = make_pandas()
    columns = {name: name for name in CELLS if name != "y"}
    data = from_table({"train": frame, "test": frame.tail(6)}, columns, {"y": "y"}, name="frames")
    assert {s: len(source) for s, source in data.splits.items()} == {"train": 24, "test": 6}
    kinds = {m: type(p.kind).__name__ for m, p in data.preparations.items()}
    assert kinds == {"size": "Numbers", "count": "Numbers", "note": "Text", "pet": "Text"} | {
        "tame": "Boolean",
        "day": "DateTime",
    }
    assert "frames: inferred from the cells: size is Numbers" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^DataFrame test, row 2: target 'y' is 'new'"):
        bad = frame.assign(y=["class 0"] * 2 + ["new"] * (NUMBER - 2))
        from_table({"train": frame, "test": bad}, columns, {"y": "y"})


def test_times_of_frames_keep_their_zone():
    days = pandas.date_range("2024-01-01 23:30", periods=NUMBER, tz="America/New_York")
    spec = DateTime("d", parts=("linear", "day"), timezone="Europe/Paris")
    texts = [day.isoformat() for day in days]
    frames = [pandas.DataFrame({"d": days, "y": CELLS["y"]}), {"d": texts, "y": CELLS["y"]}]
    frames.append(polars.DataFrame({"d": days.to_pydatetime().tolist(), "y": CELLS["y"]}))
    got = [from_table({"train": f}, {"d": spec}, {"y": "y"}, standardize=()) for f in frames]
    a, b, c = (data.splits["train"].batch.inputs["d"] for data in got)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
    assert a[0].tolist() == pytest.approx(
        [0, np.sin(2 * np.pi * 5.5 / 24), np.cos(2 * np.pi * 5.5 / 24)], abs=1e-6
    )


def test_vectors_and_sets_of_frames():
    frame = pandas.DataFrame({"v": [[1.0, 2.0], np.array([3.0, 4.0]), (5, 6)], "y": list("aba")})
    data = from_table({"train": frame}, {"v": "v"}, {"y": "y"}, standardize=())
    assert data.splits["train"].batch.inputs["v"].tolist() == [[1, 2], [3, 4], [5, 6]]


REFUSED = [
    (pandas.DataFrame({"a": [1], "y": [1]}), r"^the DataFrame has no column 'x'; it has a, y\.$"),
    ({"a": [1, 2], "y": [1, 2]}, r"dictionary of 'a', 'y'; .* has no column 'x', or \{split: tab"),
    ({"x": [1, 2], "y": [1]}, r"^the columns of the dictionary have several lengths"),
    ({"x": [], "y": []}, r"^the dictionary has no rows"),
    (pandas.DataFrame({"x": [], "y": []}), r"^the DataFrame has no rows"),
    (3, r"^the table is a int; give a path, a list of paths, a DataFrame"),
    (np.zeros((3, 2)), r"^the table is a ndarray; give a path"),
    ({"x": "abc", "y": [1, 2]}, r"^dictionary, column 'x' is a str; give a list or an array"),
    ({"x": np.zeros((2, 2, 2)), "y": [1, 2]}, r"column 'x' is a ndarray of the shape \(2, 2, 2\)"),
    ({"x": [1, {"a": 2}], "y": [1, 2]}, r"^dictionary, column 'x', row 1 is of type dict; give"),
    ({"x": [datetime.timedelta(1)], "y": [1]}, r"column 'x', row 0 is a duration; convert it"),
    (pandas.DataFrame({"x": pandas.to_timedelta([1], "s"), "y": [1]}), r"row 0 is a duration"),
    ({"x": [b"a", b"b\xff"], "y": [1, 2]}, r"column 'x', row 1: not UTF-8, byte 0xff at offset 1"),
    (pandas.DataFrame([[1, 2, 3]], columns=["x", "x", "y"]), r"several columns named 'x'"),
]


@pytest.mark.parametrize(("table", "message"), REFUSED, ids=range(len(REFUSED)))
def test_other_tables_are_refused_with_the_fix(table, message):
    with pytest.raises(ValueError, match=message):
        from_table(table, {"x": "x"}, {"y": "y"})


def read(table, columns=("size", "y")):
    return read_sources(table, columns, read_table)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_several_files_equal_one_and_keep_their_places(tmp_path, kind, monkeypatch):
    frame = pandas.DataFrame({"size": CELLS["size"], "y": CELLS["y"]})
    files = []
    for i, start in enumerate((0, 10, 17)):
        part = frame[start : (10, 17, NUMBER)[i]]
        files.append(tmp_path / f"part{i}.{kind}")
        part.to_csv(files[-1], index=False) if kind == "csv" else part.to_parquet(files[-1])
    (tmp_path / "_metadata.csv").write_text("not,a,part")
    tables = [read(files), read(str(tmp_path)), read(tmp_path / f"*rt?.{kind}")]
    monkeypatch.setenv("HOME", str(tmp_path))
    tables += [read(f"~/part*.{kind}"), read([f"~/part{i}.{kind}" for i in range(3)])]
    for table in tables:
        sizes = [None if s is None else float(s) for s in table.columns["size"]]
        assert (sizes, table.columns["y"]) == (CELLS["size"], CELLS["y"])
        number = {"csv": "line 3", "parquet": "row 1"}[kind]
        assert [table.place(i) for i in (1, 11, 18)] == [f"{f}, {number}" for f in files]
    split = Split((("train", 0.5), ("test", 0.5)), stratify="y")
    data = from_table(files, {"x": "size"}, {"y": "y"}, blank_rows="drop", split=split)
    assert sum(map(len, data.splits.values())) == NUMBER - 1
    data = from_table({"train": files}, {"x": "size"}, {"y": "y"}, blank_rows="drop")
    assert len(data.splits["train"]) == NUMBER - 1


def test_folders_of_partitions_are_columns(tmp_path):
    frame = pandas.DataFrame({"size": CELLS["size"], "y": CELLS["y"], "part": ["a b", "c"] * 12})
    pyarrow.parquet.write_to_dataset(
        pyarrow.Table.from_pandas(frame, preserve_index=False), tmp_path, partition_cols=["part"]
    )
    table = read(tmp_path, ("size", "part"))
    right = frame.sort_values("part", kind="stable")
    assert table.columns["part"] == right["part"].tolist()
    np.testing.assert_array_equal(np.array(table.columns["size"], float), right["size"])


def test_several_files_that_do_not_fit_are_refused(tmp_path):
    pandas.DataFrame({"size": [1.0], "y": [1]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text("size,z\n1,2\n")
    with pytest.raises(ValueError, match=r"b\.csv has no column 'y'; it has size, z"):
        read(tmp_path)
    (tmp_path / "b.csv").write_text("size,y\n1,2\n")
    with pytest.raises(ValueError, match=r"must both be CSV, or both Parquet"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"The folder .*empty has no table; its name must"):
        read(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"\*\.pq does not exist"):
        read(tmp_path / "*.pq")


def test_a_label_is_a_label_whatever_its_type():
    for y in ([1.0, 2.0, None] * 8, pandas.Series([1, 2, None] * 8, dtype="Int64")):
        frame = pandas.DataFrame({"x": range(NUMBER), "y": y})
        data = from_table({"train": frame}, {"x": Text("x")}, {"y": Label("y")})
        assert data.tasks["y"].classes == ("1", "2")
