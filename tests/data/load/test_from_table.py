import csv
import pickle
import re

import jax
import numpy as np
import optax
import PIL.Image
import pytest
from scipy.io import wavfile

import mmjax
from mmjax.config import apply_setting, auto_config, build_config
from mmjax.data.audio.log_mel import log_mel
from mmjax.data.dataset import Arrays, Modality, Task
from mmjax.data.kinds import Audio, Image, Label, Labels, Numbers, Text, Value
from mmjax.data.load.from_table import from_table
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression

BYTES = ("padding", *(f"0x{byte:02x}" for byte in range(256)))

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SIZES = {"train": 30, "validation": 8, "test": 9}
INPUTS = {
    "body": Numbers(("height", "weight")),
    "note": "note",
    "photo": "photo",
    "voice": Audio("voice", mels=8, window=0.016),
}
TARGETS = {"kind": "kind", "age": Value("age", unit="years"), "signs": Labels(("hot", "loud"))}
RATE = 4000


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """A table of all kinds of columns, with empty cells, and its files."""
    rng = np.random.default_rng(0)
    rows = []
    (tmp_path / "files").mkdir()
    for split, examples in SIZES.items():
        for i in range(examples):
            name, kind = f"files/{split}{i}", int(rng.integers(3))
            pixels = rng.integers(0, 256, (6, 5, 3)).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
            sound = rng.integers(-9000, 9000, int(rng.integers(300, 500))).astype(np.int16)
            wavfile.write(tmp_path / f"{name}.wav", RATE, sound)
            rows.append(
                {
                    "part": split,
                    "height": f"{rng.normal(170, 9):.3f}",
                    "weight": f"{rng.normal(70, 9):.3f}",
                    "note": ["so, so", "Größe\n2", 'a "b"'][kind],
                    "photo": f"{name}.png",
                    "voice": f"{name}.wav",
                    "kind": ["oak", "elm", "fir"][kind],
                    "age": int(rng.integers(1, 90)),
                    "hot": int(kind == 0),
                    "loud": int(kind != 1),
                }
            )
    for row, *gaps in ((1, "height", "weight"), (2, "photo"), (3, "voice", "note"), (4, "kind")):
        rows[row].update(dict.fromkeys(gaps, ""))
    rows[5].update(age="", hot="", loud="")
    write(tmp_path / "table.csv", rows)
    return tmp_path


def rows_of(folder, split="train"):
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["part"] == split]


def make(folder, inputs=INPUTS, targets=TARGETS, **options):
    options = {"split": "part"} | options
    return from_table(folder / "table.csv", inputs, targets, **options)


def everything(source):
    return source.take(np.arange(len(source)))


def change(folder, row, **cells):
    """Changes cells of the row of that number, from 0."""
    with open(folder / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows[row].update(cells)
    write(folder / "table.csv", rows)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_everything_is_inferred_and_told(folder, capsys):
    data = make(folder, name="told")
    longest = max(data.modalities["voice"].shape[0], 1)
    assert data.modalities == {
        "body": Modality((2,)),
        "note": Modality((9,), True, BYTES),
        "photo": Modality((6, 5, 3)),
        "voice": Modality((longest, 8), sequence=True),
    }
    assert data.tasks == {
        "kind": Task("classification", ("elm", "fir", "oak")),
        "age": Task("regression", unit="years"),
        "signs": Task("multilabel", ("hot", "loud")),
    }
    assert {s: len(source) for s, source in data.splits.items()} == SIZES
    said = capsys.readouterr().err
    assert said.startswith("told: 30 train, 8 validation, 9 test\n")
    assert "photo  6 x 5 x 3; present in 96.7% of train" in said
    assert "note   sequence, up to 9; present in 96.7% of train" in said
    assert re.search(
        r"age +regression, mean [\d.]+ years, standard deviation [\d.]+ years; lab", said
    )


def test_empty_cells_are_missing_and_values_are_in_their_places(folder):
    batch, rows = make(folder).splits["train"].batch, rows_of(folder)
    gaps = {m: np.flatnonzero(~here).tolist() for m, here in batch.present.items()}
    assert gaps == {"body": [1], "note": [3], "photo": [2], "voice": [3]}
    labels = {t: np.flatnonzero(~here).tolist() for t, here in batch.labeled.items()}
    assert labels == {"kind": [4], "age": [5], "signs": [5]}
    body = np.array([[float(r["height"] or "nan"), float(r["weight"] or "nan")] for r in rows])
    body = (body - np.nanmean(body, axis=0)) / np.nanstd(body, axis=0)
    np.testing.assert_allclose(batch.inputs["body"], np.nan_to_num(body), atol=1e-5)
    heard = {}
    for i, row in enumerate(rows):
        if row["photo"]:
            pixels = np.asarray(PIL.Image.open(folder / row["photo"]))
            np.testing.assert_array_equal(batch.inputs["photo"][i], pixels)
        if row["voice"]:
            samples = wavfile.read(folder / row["voice"])[1] / 2**15
            heard[i] = log_mel(samples, RATE, mels=8, window=0.016)
            assert batch.lengths["voice"][i] == len(heard[i])
        text = (batch.inputs["note"][i, : batch.lengths["note"][i]] - 1).astype(np.uint8)
        assert bytes(text).decode() == row["note"]
        assert i == 4 or ("elm", "fir", "oak")[batch.targets["kind"][i]] == row["kind"]
        assert i == 5 or batch.targets["signs"][i].tolist() == [int(row["hot"]), int(row["loud"])]
        assert i == 5 or batch.targets["age"][i] == float(row["age"])
    frames = np.concatenate(list(heard.values())).astype(np.float64)
    expected = (heard[0] - frames.mean(axis=0)) / frames.std(axis=0)
    np.testing.assert_allclose(batch.inputs["voice"][0, : len(expected)], expected, atol=1e-4)
    assert (batch.inputs["voice"][0, len(expected) :] == 0).all()


def test_read_on_demand_gives_the_same_and_can_be_sent_to_workers(folder):
    kept, lazy = make(folder), make(folder, in_memory=False)
    assert kept.modalities == lazy.modalities
    for split, source in lazy.splits.items():
        assert not isinstance(source, Arrays)
        same(everything(source), kept.splits[split].batch)
        indices = np.array([3, 0, 3])
        sent = pickle.loads(pickle.dumps(source))
        same(sent.take(indices), kept.splits[split].take(indices))
    (folder / rows_of(folder, "test")[2]["photo"]).unlink()
    lazy.splits["test"].take(np.array([1]))  # whose file is still there
    with pytest.raises(ValueError, match=r"table\.csv, line \d+, 'photo': file .* does not exist"):
        lazy.splits["test"].take(np.array([2]))


def test_parquet_and_one_file_a_split_give_the_same(folder):
    kept, paths = make(folder), {}
    for split in SIZES:
        rows = rows_of(folder, split)
        numbers = {
            k: [float(r[k]) if r[k] else None for r in rows] for k in ("height", "weight", "age")
        }
        others = {k: [r[k] or None for r in rows] for k in ("note", "photo", "voice", "kind")}
        signs = {k: [bool(int(r[k])) if r[k] else None for r in rows] for k in ("hot", "loud")}
        paths[split] = str(folder / f"{split}.parquet")
        parquet.write_table(pyarrow.table(numbers | others | signs), paths[split])
    data = from_table(paths, INPUTS, TARGETS)
    assert (data.name, data.modalities, data.tasks) == ("train", kept.modalities, kept.tasks)
    for split in SIZES:
        same(data.splits[split].batch, kept.splits[split].batch)


def test_a_list_in_a_parquet_cell_is_a_vector(tmp_path):
    columns = {"x": [[1.0, 2.0], None, [3.0, 6.0]], "z": [1, 2, 3], "y": ["a", "b", "a"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    data = from_table({"train": tmp_path / "t.parquet"}, {"x": "x", "z": "z"}, {"y": "y"})
    batch = data.splits["train"].batch
    np.testing.assert_allclose(batch.inputs["x"], [[-1, -1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(batch.present["x"], [True, False, True])


def test_shares_are_drawn_by_the_seed(tmp_path):
    rows = [{"x": i, "y": i % 2} for i in range(200)]
    table = write(tmp_path / "t.csv", rows)

    def drawn(**options):
        data = from_table(table, {"x": "x"}, {"y": "y"}, standardize=(), **options)
        return [
            source.batch.inputs["x"][:, 0].astype(int).tolist() for source in data.splits.values()
        ]

    a, b, c = drawn(), drawn(), drawn(seed=1)
    assert a == b != c and [len(part) for part in a] == [160, 20, 20]
    assert sorted(a[0] + a[1] + a[2]) == list(range(200))
    assert [len(p) for p in drawn(split={"train": 0.5, "test": 0.25, "rest": 0.25})] == [
        100,
        50,
        50,
    ]
    with pytest.raises(ValueError, match=r"shares must be positive and sum to 1"):
        drawn(split={"train": 0.5, "test": 0.4})


def text_table(tmp_path, texts, test):
    rows = [{"part": "train", "t": t, "y": i % 2} for i, t in enumerate(texts)]
    rows += [{"part": "test", "t": t, "y": i % 2} for i, t in enumerate(test)]
    return write(tmp_path / "t.csv", rows)


@pytest.mark.filterwarnings("ignore:.*tokens of modality 't' in .* are unknown")
def test_words_are_those_of_train_the_most_frequent_first(tmp_path):
    table = text_table(tmp_path, ["Tea, tea!", "milk Tea", "tea milk"], ["tea rum", "milk, tea"])
    spec = Text("t", level="word", vocabulary=4, longest=3)
    data = from_table(table, {"t": spec}, {"y": "y"}, split="part")
    train, test = (data.splits[s].batch for s in ("train", "test"))
    assert data.modalities["t"].vocabulary == ("padding", "unknown", "tea", "milk")
    assert train.inputs["t"].tolist() == [[2, 1, 2], [3, 2, 0], [2, 3, 0]]
    assert test.inputs["t"].tolist() == [[2, 1, 0], [3, 1, 2]] and test.lengths["t"].tolist() == [
        2,
        3,
    ]


def test_images_are_brought_to_one_size_and_channels(folder):
    rng = np.random.default_rng(0)
    path = folder / "files" / "train0.png"
    PIL.Image.fromarray(rng.integers(0, 256, (12, 10)).astype(np.uint8)).save(path)
    with pytest.raises(
        ValueError,
        match=r"line 3: modality 'photo' has shape \(6, 5, 3\), but \(12, 10, 1\) at .*line 2",
    ):
        make(folder)  # fmt: skip
    spec = Image("photo", size=(3, 4), channels=1)
    data = make(folder, INPUTS | {"photo": spec})
    assert data.modalities["photo"] == Modality((3, 4, 1))
    PIL.Image.fromarray(np.full((40, 30), 77, np.uint8)).save(path)
    pixels = make(folder, INPUTS | {"photo": spec}).splits["train"].batch.inputs["photo"]
    assert pixels.dtype == np.uint8 and (pixels[0] == 77).all()


def tone(path, rate):
    wavfile.write(
        path, rate, np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate).astype(np.float32)
    )


def test_sample_rates_must_be_one_unless_resampling_is_asked_for(tmp_path):
    for name, rate in (("a", 8000), ("b", 16000), ("c", 8000)):
        tone(tmp_path / f"{name}.wav", rate)
    rows = [{"f": f"{name}.wav", "y": name != "a"} for name in "abc"]
    table = {"train": write(tmp_path / "t.csv", rows)}
    with pytest.raises(
        ValueError, match=r"line 3, 'f': .*b\.wav has 16000 samples per second, others 8000; give"
    ):
        from_table(table, {"f": "f"}, {"y": "y"})  # fmt: skip
    data = from_table(table, {"f": Audio("f", sample_rate=8000)}, {"y": "y"}, standardize=())
    a, b, c = data.splits["train"].batch.inputs["f"]
    np.testing.assert_array_equal(a, c)
    assert a.shape == b.shape
    loudest = a[2:-2].max(axis=1)
    np.testing.assert_allclose(b[2:-2].max(axis=1), loudest, atol=0.02)  # one tone, one level
    assert (a[2:-2].argmax(axis=1) == b[2:-2].argmax(axis=1)).all()


def test_columns_are_told_by_their_cells(tmp_path):
    rows = [
        {
            "number": "1e3",
            "text": "12 ab",
            "image": "A.JPG",
            "sound": "a.wav",
            "class": i,
            "real": i / 2,
        }
        for i in range(2)
    ]
    write(tmp_path / "t.csv", rows)
    from mmjax.data.load.infer_kinds import infer_input_kind, infer_target_kind
    from mmjax.data.load.tables.dialect import DEFAULT_DIALECT
    from mmjax.data.load.tables.table_files import read_table

    part = (read_table(tmp_path / "t.csv", rows[0]), [0, 1])
    found = [
        infer_input_kind(c, c, part, DEFAULT_DIALECT) for c in ("number", "text", "image", "sound")
    ]
    assert found == [Numbers("number"), Text("text"), Image("image"), Audio("sound")]
    assert [infer_target_kind(c, part, DEFAULT_DIALECT) for c in ("class", "real")] == [
        Label("class"),
        Value("real"),
    ]


def spoil(name, change_content):
    def on(folder):
        path = folder / "files" / name
        path.write_bytes(change_content(path.read_bytes()))

    return on


def put(row, **cells):
    return lambda folder: change(folder, row, **cells)


def raw(old, new):
    """Changes bytes of the table itself, from the last place on which the old ones are."""

    def on(folder):
        path = folder / "table.csv"
        before, found, after = path.read_bytes().rpartition(old)
        assert found
        path.write_bytes(before + new + after)

    return on


BAD = [
    (
        spoil("train6.png", lambda b: b[: len(b) // 2]),
        r"table\.csv, line \d+, 'photo': .*train6\.png is not a",
    ),
    (
        spoil("train6.png", lambda b: b"GIF89a" + b[6:]),
        r"'photo': .*train6\.png is not a",
    ),
    (
        spoil("train6.png", lambda b: b[:60] + b"\0\0\0" + b[63:]),
        r"'photo': .*train6\.png is not a",
    ),
    (spoil("train6.png", lambda b: b""), r"train6\.png is not an image file: it is neither PNG"),
    (
        spoil("test1.wav", lambda b: b[: len(b) // 2]),
        r"table\.csv, line \d+, 'voice': .*test1\.wav is not a whole WAV file: ",
    ),
    (spoil("test1.wav", lambda b: b"RIFX" + b[4:]), r"'voice': .*test1\.wav "),
    (put(8, photo="files/gone.png"), r"line \d+, 'photo': file .*gone\.png does not exist\."),
    (
        put(40, kind="ash"),
        r"table\.csv, line \d+: target 'kind' is 'ash', which is none of its 3 classes: elm, fir"
        r".*name all classes",
    ),
    (put(9, height="tall"), r"line \d+, 'body': 'tall' is not a number; leave the cell empty"),
    (put(9, height="inf"), r"'body': 'inf' is not a finite number"),
    (put(9, age="old"), r"line \d+, 'age': 'old' is not a number"),
    (put(9, hot="2"), r"line \d+, 'signs': '2' is neither 0 nor 1"),
    (put(9, part=""), r"line \d+: column 'part' names no split"),
    (
        put(9, height="", weight="", note="", photo="", voice=""),
        r"line \d+ has none of the inputs height, note, photo, voice, weight",
    ),
    (
        raw("Größe".encode(), b"Gr\xf6\xdfe"),
        r"table\.csv, line \d+: not UTF-8, byte 0xf6 at offset \d+ of the line",
    ),
    (raw(b",files/test3.png", b""), r"table\.csv, line \d+: 9 cells; the header has 10"),
    (
        raw(b"height,", b"weight,"),
        r"table\.csv has no column 'height'; it has part, weight, weight,",
    ),
    (raw(b"part,", b"kind,"), r"has no column 'part'|several columns named 'kind'"),
    (raw(b"\n", b'\n"open'), r"table\.csv, line \d+: "),
]


@pytest.mark.parametrize(("spoiled", "message"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_tables_and_files_are_refused(folder, spoiled, message):
    spoiled(folder)
    with pytest.raises(ValueError, match=message):
        make(folder)


def test_unreadable_files_are_left_out_and_counted_if_asked_for(folder):
    whole = make(folder)
    spoil("train6.png", lambda b: b[:99])(folder)
    (folder / "files" / "train9.wav").unlink()
    for in_memory in (True, False):
        with pytest.warns(UserWarning, match=r"left out 2 of the 30 examples of 'train', .*train6"):
            data = make(folder, skip_unreadable=True, in_memory=in_memory, standardize=())
        assert data.facts["skipped"] == {"train": 2} and len(data.splits["train"]) == 28
        kept = [i for i in range(30) if i not in (6, 9)]
        batch = everything(data.splits["train"])
        for name in ("kind", "age", "signs"):
            expected = whole.splits["train"].batch.targets[name][kept]
            np.testing.assert_array_equal(batch.targets[name], expected)
        np.testing.assert_array_equal(
            batch.inputs["photo"], whole.splits["train"].batch.inputs["photo"][kept]
        )


def test_damaged_parquet_and_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "t.parquet"
    columns = {"t": pyarrow.array([b"fine", b"b\xe4d"]), "y": [0, 1]}
    columns["t"] = pyarrow.Array.from_buffers(pyarrow.string(), 2, columns["t"].buffers())
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(
        ValueError, match=r"t\.parquet, row 1, column 't': not UTF-8, byte 0xe4 at offset 1"
    ):
        from_table({"train": path}, {"t": "t"}, {"y": "y"})  # fmt: skip
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t\.parquet is not a whole Parquet file: "):
            from_table({"train": path}, {"t": "t"}, {"y": "y"})


def test_bad_arguments_and_splits_are_refused(folder, tmp_path):
    table = folder / "table.csv"
    one = write(tmp_path / "one.csv", [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}])
    for options, message in (
        ({"table": folder / "gone.csv"}, r"Table .*gone\.csv does not exist"),
        ({"inputs": {}}, "inputs and targets each need at least one column"),
        ({"inputs": {"x": "hight"}}, "has no column 'hight'; it has part, height"),
        ({"standardize": ("note", "nose")}, "standardize names 'nose'"),
        (
            {"table": {"train": table}},
            "split is given, but the table is already one per",
        ),
        ({"split": "kind"}, "names no split|has no split 'train'"),
        ({"split": {"train": 0.999, "test": 0.001}}, "the split 'test' gets none of 47 rows"),
        (
            {"table": one, "inputs": {"x": "x"}, "targets": {"y": "y"}, "split": {"train": 1.0}},
            "'y' has one class",
        ),
        ({"inputs": INPUTS | {"photo": Image("photo", channels=2)}}, "cannot have 2 channels"),
    ):
        given = {"table": table, "inputs": INPUTS, "targets": TARGETS, "split": "part"} | options
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            from_table(**given)


def test_a_split_of_one_class_and_shared_examples_are_warned_of(tmp_path):
    rows = [{"part": "train", "x": i, "y": i % 2} for i in range(6)]
    tests = [{"part": "test", "x": x, "y": 1} for x in (9, 4)]
    table = write(tmp_path / "t.csv", rows + tests)
    with pytest.warns(UserWarning) as said:
        from_table(table, {"x": "x"}, {"y": "y"}, split="part")
    assert [str(w.message) for w in said] == [
        "t, split 'test': task 'y' has labels of one class only, '1'.",
        f"t: 1 of the 2 examples of 'test' have the same inputs as one of 'train', first {table}, "
        f"line 9 and {table}, line 6.",
    ]


@auto_config
def experiment(folder: str = "") -> mmjax.Experiment:
    return mmjax.Experiment(
        data=from_table(
            f"{folder}/table.csv",
            inputs={"body": Numbers(("height", "weight")), "photo": Image("photo", size=(4, 4))},
            targets={"kind": "kind", "age": Value("age", unit="years")},
            split="part",
            in_memory=False,
        ),
        model=mmjax.Model(
            encoders={"body": MLPEncoder((4,)), "photo": MLPEncoder((4,))},
            fusion=Concat(),
            heads={"kind": Classification(3), "age": Regression(mean=45.0, scale=25.0)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=1,
        batch_size=10,
        stream=True,
    )


@pytest.mark.slow
def test_a_streamed_experiment_set_on_the_command_line_trains(folder, tmp_path):
    config = experiment.as_buildable(str(folder))
    for setting in (
        "data.inputs.photo.size=(3, 2)",
        "data.inputs.photo.channels=1",
        "data.inputs.note=data.Text('note', level='word')",
        "data.targets.signs=data.Labels(('hot', 'loud'))",
        "data.standardize=('photo',)",
    ):
        config = apply_setting(config, setting)
    run = build_config(config)
    assert run.data.modalities["photo"] == Modality((3, 2, 1)) and "signs" in run.data.tasks
    fitted = mmjax.fit(run, tmp_path / "run", devices=jax.devices()[:1])
    assert np.isfinite(fitted.test[0]["loss"])
