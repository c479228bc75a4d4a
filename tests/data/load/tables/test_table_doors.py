"""What a table says about itself: the kind of a file, of a column, of a label."""

import bz2
import gzip
import lzma

import numpy as np
import pytest

from mmjax.data import Label, Numbers, Text, from_table
from mmjax.data.kinds import Category
from mmjax.data.limits import LimitError
from mmjax.data.load.targets.class_names import format_class_name

ROWS = [f"{150 + i / 7:.2f},{i % 2}" for i in range(300)]


def write(path, rows, header="height,y"):
    path.write_text("\n".join([header, *rows]))
    return path


def test_an_odd_cell_among_numbers_is_named(tmp_path):
    rows = [*ROWS]
    rows[17] = "unknown,1"
    path = write(tmp_path / "t.csv", rows)
    split = {"train": path}
    message = r"line 19, column 'height': 'unknown' is not of the kind Numbers, as 299 of 300 cells"
    with pytest.raises(ValueError, match=message):
        from_table(split, {"height": "height"}, {"y": "y"})
    data = from_table(split, {"height": Text("height")}, {"y": "y"})
    assert data.modalities["height"].sequence


def test_an_odd_cell_among_the_numbers_of_a_target_is_named(tmp_path):
    rows = [f"{i},{i / 7:.2f}" for i in range(1, 100)]
    path = write(tmp_path / "t.csv", [*rows, "100,n.a."])
    message = r"line 101, column 'y': 'n.a.' is not a number, as 99 of 100 cells are"
    with pytest.raises(ValueError, match=message):
        from_table({"train": path}, {"x": "height"}, {"y": "y"})
    rows = from_table({"train": path}, {"x": "height"}, {"y": Label("y")}).tasks["y"].classes
    assert "n.a." in rows and "0.14" in rows


def test_a_refused_class_is_told_on_one_line(tmp_path):
    train, test = ['1,"a\nb"', "2,c"], ["3,d"]
    tables = {
        split: write(tmp_path / f"{split}.csv", rows, "x,y")
        for split, rows in (("train", train), ("test", test))
    }
    message = r"line 2: target 'y' is 'd', which is none of its 2 classes: a\\nb, c"
    with pytest.raises(ValueError, match=message):
        from_table(tables, {"x": "x"}, {"y": "y"})


def test_classes_are_the_same_as_text_and_as_bytes():
    for name in ("1", "1.0", "01", "1.5", "oak"):
        assert format_class_name(name.encode()) == format_class_name(name)


def test_a_column_of_names_is_text_though_some_are_numbers(tmp_path):
    rows = [f"{'note' if i % 3 else i},{i % 2}" for i in range(90)]
    path = write(tmp_path / "t.csv", rows)
    data = from_table({"train": path}, {"note": "height"}, {"y": "y"})
    assert data.modalities["note"].sequence


def test_whole_numbers_written_as_floats_are_whole(tmp_path):
    path = write(tmp_path / "t.csv", [f"{i},{i % 12 + 1}.0" for i in range(240)])
    data = from_table({"train": path}, {"x": Numbers(("height",))}, {"y": "y"})
    assert data.tasks["y"].classes == tuple(map(str, range(1, 13)))
    assert data.splits["train"].batch.targets["y"][:13].tolist() == [*range(12), 0]


@pytest.mark.parametrize("package", [gzip, bz2, lzma])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_compressed_tables_are_known_by_content(tmp_path, package, name):
    plain = write(tmp_path / "plain.csv", ROWS)
    packed = tmp_path / name
    packed.write_bytes(package.compress(plain.read_bytes()))
    read = [from_table({"train": p}, {"x": "height"}, {"y": "y"}) for p in (plain, packed)]
    a, b = (data.splits["train"].batch.inputs["x"] for data in read)
    np.testing.assert_array_equal(a, b)
    with pytest.raises(LimitError, match="unpacks to more than the limit"):
        from_table({"train": packed}, {"x": "height"}, {"y": "y"}, max_bytes=1000)
    packed.write_bytes(package.compress(plain.read_bytes())[:-30])
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        from_table({"train": packed}, {"x": "height"}, {"y": "y"})


def test_parquet_is_known_by_content(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": np.arange(120.0), "y": np.arange(120) % 2})
    path = tmp_path / "t.csv"
    table.to_parquet(path, compression="brotli")
    data = from_table({"train": path}, {"a": Numbers(("a",))}, {"y": "y"})
    assert len(data.splits["train"]) == 120


def test_kinds_that_are_given_are_not_questioned(tmp_path):
    rows = [f"{'x' if i == 3 else i % 5},{i % 2}" for i in range(60)]
    path = write(tmp_path / "t.csv", rows)
    data = from_table({"train": path}, {"code": Category("height")}, {"y": "y"})
    assert len(data.splits["train"]) == 60
