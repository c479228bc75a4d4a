"""`mmjax data`: data sets by name, by call and of the user's own; their files, tables, pictures."""

import gzip
import inspect
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax import cli, data
from mmjax.cli import data_command as command

MINE = '''
import numpy as np

from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.types import Batch

ASKED = []


def flowers(*, size: int = 4, data_dir: str | None = None) -> Dataset:
    """Petals in centimetres."""
    ASKED.append(data_dir)
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1.")
    here = np.ones(size, bool)
    inputs = {"petals": np.arange(2.0 * size, dtype=np.float32).reshape(size, 2)}
    batch = Batch(inputs, {"petals": here}, {}, {"kind": np.arange(size) % 2}, {"kind": here})
    kinds = Task("classification", classes=("rose", "tulip"))
    return Dataset("flowers", {"petals": Modality((2,))}, {"kind": kinds}, {"train": Arrays(batch)})


def number() -> int:
    return 7
'''


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A directory of its own with a module of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_flowers.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("mine_flowers", None)


def failed(capsys, *argv):
    """What a command says that fails, and its exit code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.script(["data", *argv])
    error = capsys.readouterr().err
    assert "Traceback" not in error and "Fiddle" not in error
    return error, ended.value.code


def test_describe_prints_tables_and_draws_a_picture(capsys, workplace):
    cli.script(["data", "describe", "mine_flowers:flowers"])
    said = capsys.readouterr().out
    assert "rose   2 (50.0%)" in said and "petals" in said
    assert said.rstrip().endswith("Examples of train: flowers.png")
    with Image.open(workplace / "flowers.png") as image:
        assert image.format == "PNG"


def test_a_call_has_its_arguments_and_out_its_place(capsys, workplace):
    cli.script(["data", "describe", "mine_flowers:flowers(size=3)", "--out", "other.png"])
    assert "rose   2 (66.7%)" in capsys.readouterr().out
    assert (workplace / "other.png").is_file() and not (workplace / "flowers.png").exists()


@pytest.mark.parametrize("arguments", ["", "(size=2)", "(data_dir='x')"])
def test_folders_reach_the_function(arguments):
    cli.script(["data", "prepare", f"mine_flowers:flowers{arguments}", "--data-dir", "kept"])
    assert sys.modules["mine_flowers"].ASKED[-1] == "kept"


@pytest.mark.parametrize("name", ["digit_pairs", "data.digit_pairs", "mmjax.data.digit_pairs"])
@pytest.mark.parametrize("arguments", ["", "(train=5, validation=3, test=2)"])
def test_names_of_mmjax(name, arguments, capsys):
    cli.script(["data", "prepare", name + arguments])
    sizes = "5 train, 3 validation, 2 test" if arguments else "6,016 train"
    assert f"digit_pairs is ready: {sizes}" in capsys.readouterr().out


def write_originals(folder):
    """60 and 20 random images with labels, as idx files."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for part, size in (("train", 60), ("t10k", 20)):
        parts = {
            "images-idx3": rng.integers(0, 256, (size, 28, 28), dtype=np.uint8),
            "labels-idx1": rng.integers(0, 10, size, dtype=np.uint8),
        }
        for kind, values in parts.items():
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))


def test_prepare_makes_the_files_once(workplace, capsys):
    write_originals(workplace / "mnist")
    name = "multi_mnist(train=40, validation=20, test=20, pairing=Pairing(offset=6))"
    folders = ["--manual-dir", ".", "--data-dir", "kept"]
    cli.script(["data", "prepare", name, *folders])
    first = capsys.readouterr()
    assert first.out == "multi_mnist is ready: 40 train, 20 validation, 20 test.\n"
    assert "multi_mnist: train" in first.err and "40 of 40" in first.err, "a bar"
    files = {f: f.stat().st_mtime_ns for f in Path("kept").rglob("*.array_record*")}
    assert files
    cli.script(["data", "describe", name, *folders])
    assert "28 x 28 x 1" in capsys.readouterr().out
    assert {f: f.stat().st_mtime_ns for f in Path("kept").rglob("*.array_record*")} == files


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["describe", "multi_mnits"], "unknown data set 'multi_mnits'. Did you mean multi_mnist"),
        (["describe", "data.nothing"], "There are av_mnist, digit_pairs, "),
        (["describe", "concat"], "unknown data set 'concat'"),
        (["describe", "csv"], "polyglot_digits; with arguments in parentheses, from_arrays, from_"),
        (["describe", "from_table"], "missing 3 required positional arguments: 'table', 'inputs'"),
        (["describe", "mine_flowers:trees"], "module 'mine_flowers' has no 'trees'"),
        (["describe", "no_such:thing"], "the module no_such does not exist"),
        (["describe", "mine_flowers:number"], "makes a int; it must make an mmjax.Dataset"),
        (["describe", "mine_flowers:flowers(sise=3)"], "Did you mean size"),
        (["describe", "mine_flowers:flowers(size='x')"], "expected int"),
        (["describe", "mine_flowers:flowers(size=0)"], "size is 0; it must be at least 1"),
        (["describe", "mine_flowers:flowers(size="], "cannot read"),
        (["describe", "digit_pairs", "--manual-dir", "."], "digit_pairs takes no --manual-dir"),
        (["describe", "mine_flowers:flowers", "--out", "no/f.png"], "the folder no does not exist"),
        (["describe", "mine_flowers:flowers", "--out", "f.jpeg"], "must end in .png"),
        (["describe"], "required: NAME"),
        ([], "required: action"),
    ],
)
def test_what_is_refused(argv, message, capsys, workplace):
    error, code = failed(capsys, *argv)
    assert message in error and code == 2
    assert not list(workplace.glob("*.png"))


def test_what_is_not_a_function_is_refused(capsys):
    error, code = failed(capsys, "prepare", "mine_flowers:ASKED")
    assert "mine_flowers:ASKED is a list; name a function" in error and code == 2


def test_a_missing_original_file_is_named(capsys):
    error, code = failed(capsys, "prepare", "multi_mnist", "--manual-dir", ".", "--data-dir", "k")
    assert code == 1
    assert "train-images-idx3-ubyte.gz in ." in error and len(error.strip().splitlines()[-1]) > 20


def test_nothing_in_a_name_is_evaluated(capsys, workplace):
    for name in ("digit_pairs(seed=open('x', 'w'))", "mine_flowers:flowers(size=[].append(1))"):
        assert failed(capsys, "prepare", name)[1] == 2
    assert not (workplace / "x").exists()


def test_the_data_sets_of_mmjax_are_known():
    known = command.list_data_set_names()
    assert {"digit_pairs", "polyglot_digits", "multi_mnist", "multi_fashion"} <= set(known)
    assert "Pairing" not in known


def test_data_sets_that_need_no_arguments_are_listed_apart(capsys):
    error, _ = failed(capsys, "describe", "nothing_like_it")
    alone, others, _ = error.split("There are ")[1].split("; ")
    loaders = ["from_arrays", "from_table", "from_tfds", "group_modalities"]
    assert others.removeprefix("with arguments in parentheses, ").split(", ") == loaders
    names = set(alone.split(", "))
    assert names | set(loaders) == set(command.list_data_set_names())
    for name in names:
        inspect.signature(getattr(data, name)).bind()  # which needs no argument
