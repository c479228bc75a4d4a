import io
import pathlib
import pickle
import re
import struct
import zlib

import jax
import numpy as np
import optax
import PIL.Image
import pytest
import tensorflow_datasets as tfds

import mmjax
from mmjax.data.audio.log_mel import log_mel
from mmjax.data.dataset import Arrays, Modality, Task
from mmjax.data.kinds import Audio, Image, Label, Labels, Numbers, Text, Value
from mmjax.data.limits import LimitError
from mmjax.data.load.from_tfds import from_tfds
from mmjax.data.load.tfds.sources import Decoding
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, MultiLabel, Regression

BYTES = ("padding", *(f"0x{byte:02x}" for byte in range(256)))

RATE = 4000
SIZES = {"train": 40, "test": 12}
WORDS = ("a red tea", "Äpfel!", "a tea")


def examples(split):
    """What the builder stores, with what is missing."""
    rng = np.random.default_rng(len(split))
    for i in range(SIZES[split]):
        kind = int(rng.integers(3))
        yield {
            "photo": rng.integers(0, 256, (4, 5, 1)).astype(np.uint8),
            "sound": rng.integers(-9000, 9000, rng.integers(300, 500)).astype(np.int16),
            "caption": "" if i == 3 else WORDS[kind],
            "sensor": {"at": rng.normal(size=2), "walk": rng.normal(size=(rng.integers(2, 5), 2))},
            "steps": [{"turn": int(t), "pad": 0.5} for t in rng.integers(0, 9, kind + 1)],
            "maybe": None if i % 4 == 0 else rng.normal(size=3).astype(np.float32),
            "kind": -1 if i == 5 else kind,
            "tags": [0, 2] if kind == 1 else [kind],
            "count": int(rng.integers(0, 50)),
            "weight": float("nan") if i == 6 else float(kind + 0.5),
            "heavy": bool(kind == 2),
            "name": WORDS[kind],
        }


def png(pixels):
    stored = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0]).save(stored, "PNG")
    return io.BytesIO(stored.getvalue())


class Toy(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    code_path = pathlib.Path(__file__)

    def _info(self):
        f = tfds.features
        features = {
            "photo": f.Image(shape=(4, 5, 1), encoding_format="png"),
            "sound": f.Tensor(shape=(None,), dtype=np.int16),  # f.Audio needs TensorFlow
            "caption": f.Text(),
            "sensor": {
                "at": f.Tensor(shape=(2,), dtype=np.float64),
                "walk": f.Tensor(shape=(None, 2), dtype=np.float64),
            },
            "steps": f.Sequence({"turn": np.int64, "pad": np.float32}),
            "maybe": f.Tensor(shape=(3,), dtype=np.float32, optional=True),
            "kind": f.ClassLabel(names=["oak", "elm", "fir"]),
            "tags": f.Sequence(f.ClassLabel(names=["x", "y", "z"])),
            "count": f.Scalar(np.int64),
            "weight": f.Scalar(np.float32),
            "heavy": f.Scalar(np.bool_),
            "name": f.Text(),
        }
        return self.dataset_info_from_configs(features=f.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split):
        for i, example in enumerate(examples(split)):
            yield i, example | {"photo": png(example["photo"])}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return Toy(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")


INPUTS = {
    "photo": "photo",
    "sound": Audio("sound", sample_rate=RATE, mels=8, window=0.016),
    "caption": "caption",
    "at": "sensor/at",
    "walk": "sensor/walk",
    "turns": "steps/turn",
    "maybe": "maybe",
}
TARGETS = {
    "kind": "kind",
    "tags": "tags",
    "count": Value("count", unit="trees"),
    "weight": "weight",
    "heavy": "heavy",
}
SPLITS = {"train": "train[:75%]", "validation": "train[75%:]", "test": "test"}


def make(builder, inputs=INPUTS, targets=TARGETS, **options):
    return from_tfds(builder, inputs, targets, **({"splits": SPLITS} | options))


def by_photo(batch):
    """TFDS shuffles; an example's pixels tell which it is."""
    known = {e["photo"].tobytes(): e for split in SIZES for e in examples(split)}
    return [known[pixels.tobytes()] for pixels in batch.inputs["photo"]]


def test_weights_are_those_of_the_examples(builder):
    """Example 6 of the train split has the weight NaN; without a label of the task it is 0."""
    targets = {"kind": "kind"}
    with pytest.raises(ValueError, match="weight of task 'kind'"):
        make(builder, {"photo": "photo"}, targets, weights={"kind": "weight"})
    data = make(builder, {"photo": "photo"}, targets, weights={"kind": "count"})
    for split in data.splits.values():
        batch = split.take(np.arange(len(split)))
        counts = [e["count"] for e in by_photo(batch)]
        np.testing.assert_array_equal(
            batch.weights["kind"], np.where(batch.labeled["kind"], counts, 0)
        )
    with pytest.raises(ValueError, match="weights names 'wood'"):
        make(builder, {"photo": "photo"}, targets, weights={"wood": "count"})


def test_features_are_inferred_and_told(builder, capsys):
    data = make(builder, name="told")
    assert data.modalities == {
        "photo": Modality((4, 5, 1)),
        "sound": Modality(data.modalities["sound"].shape, sequence=True),
        "caption": Modality((9,), True, BYTES),
        "at": Modality((2,)),
        "walk": Modality((4, 2), sequence=True),
        "turns": Modality((3,), sequence=True),
        "maybe": Modality((3,)),
    }
    assert data.tasks == {
        "kind": Task("classification", ("oak", "elm", "fir")),
        "tags": Task("multilabel", ("x", "y", "z")),
        "count": Task("regression", unit="trees"),
        "weight": Task("regression"),
        "heavy": Task("classification", ("False", "True")),
    }
    assert {s: len(source) for s, source in data.splits.items()} == {
        "train": 30, "validation": 10, "test": 12,
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "told: 30 train, 10 validation, 12 test\n" in said
    assert "kind     classification, 3 classes: oak, elm, fir" in said


def test_values_are_those_that_were_stored(builder):
    data = make(builder, standardize=())
    missing = {"kind": 0, "weight": 0, "caption": 0, "maybe": 0}
    for source in data.splits.values():
        batch = source.batch
        for i, e in enumerate(by_photo(batch)):
            sound = log_mel(e["sound"] / 2**15, RATE, mels=8, window=0.016)
            walk, turns = e["sensor"]["walk"], [s["turn"] for s in e["steps"]]
            for name, expected in (("sound", sound), ("walk", walk), ("turns", turns)):
                length = batch.lengths[name][i]
                assert length == len(expected)
                np.testing.assert_allclose(batch.inputs[name][i, :length], expected, rtol=1e-5)
                assert (batch.inputs[name][i, length:] == 0).all()
            text = batch.inputs["caption"][i, : batch.lengths["caption"][i]] - 1
            assert bytes(text.astype(np.uint8)).decode() == e["caption"]
            assert batch.present["caption"][i] == (e["caption"] != "")
            np.testing.assert_allclose(batch.inputs["at"][i], e["sensor"]["at"], rtol=1e-6)
            assert batch.present["maybe"][i] == (e["maybe"] is not None)
            if e["maybe"] is not None:
                np.testing.assert_array_equal(batch.inputs["maybe"][i], e["maybe"])
            assert batch.labeled["kind"][i] == (e["kind"] >= 0)
            assert batch.targets["kind"][i] == max(e["kind"], 0)
            assert batch.labeled["weight"][i] == np.isfinite(e["weight"])
            assert batch.targets["weight"][i] == np.nan_to_num(e["weight"])
            assert np.flatnonzero(batch.targets["tags"][i]).tolist() == e["tags"]
            assert batch.targets["count"][i] == e["count"]
            assert batch.targets["heavy"][i] == e["heavy"]
        for name in missing:
            part = batch.labeled if name in batch.labeled else batch.present
            missing[name] += int((~part[name]).sum())
    assert missing == {"kind": 2, "weight": 2, "caption": 2, "maybe": 13}


def test_read_on_demand_gives_the_same_and_can_be_sent_to_workers(builder):
    kept, lazy = make(builder), make(builder, in_memory=False)
    indices = np.array([7, 0, 7])
    for split, source in lazy.splits.items():
        assert not isinstance(source, Arrays) and len(source) == len(kept.splits[split])
        sent = pickle.loads(pickle.dumps(source))
        expected = kept.splits[split].take(indices)
        for got in (source.take(indices), sent.take(indices)):
            jax.tree.map(np.testing.assert_array_equal, got, expected)
    train = kept.splits["train"].batch
    np.testing.assert_allclose(train.inputs["at"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train.inputs["at"].std(axis=0), 1, atol=1e-6)
    here = train.inputs["maybe"][train.present["maybe"]]
    np.testing.assert_allclose(here.std(axis=0), 1, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*gives the target 'kind' away", "ignore:.*are unknown")
def test_how_features_are_read_can_be_said(builder):
    inputs = {
        "photo": Image("photo", size=(8, 10), channels=3),
        "words": Text("name", level="word", vocabulary=4),
        "numbers": Numbers(("sensor/at", "count")),
    }
    targets = {
        "kind": Label("name", classes=("a tea", "Äpfel!", "a red tea")),
        "signs": Labels(("heavy",)),
    }
    data = make(builder, inputs, targets, standardize=())
    batch = data.splits["train"].batch
    assert batch.inputs["photo"].shape == (30, 8, 10, 3)
    assert batch.inputs["numbers"].shape == (30, 3)
    assert data.tasks["kind"].classes == ("a tea", "Äpfel!", "a red tea")
    counts = {"a": 0, "tea": 0, "red": 0, "äpfel": 0, "!": 0}
    for kind in batch.targets["kind"]:
        for word in re.findall(r"\w+|!", data.tasks["kind"].classes[kind].lower()):
            counts[word] += 1
    first, second = sorted(counts, key=lambda w: (-counts[w], w))[:2]
    tokens = {first: 2, second: 3}
    assert data.modalities["words"].vocabulary == ("padding", "unknown", first, second)
    for i, kind in enumerate(batch.targets["kind"]):
        words = re.findall(r"\w+|!", data.tasks["kind"].classes[kind].lower())
        expected = [tokens.get(word, 1) for word in words]
        assert batch.inputs["words"][i, : len(words)].tolist() == expected
        assert batch.targets["signs"][i, 0] == (data.tasks["kind"].classes[kind] == "a tea")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": {"x": "foto"}}, "feature 'foto' does not exist; the features are .*sensor/at"),
        ({"inputs": {"x": "sensor/of"}}, "feature 'sensor/of' does not exist"),
        ({"inputs": {"x": "sensor"}}, "'sensor' holds several features"),
        ({"targets": {}}, "inputs and targets each need at least one feature"),
        ({"standardize": ("foto",)}, "standardize names 'foto'"),
        ({"splits": {"test": "test"}}, "has no split 'train'"),
        ({"splits": {"train": "train[:0]"}}, "The split 'train' of toy is empty"),
        ({"splits": {"train": "train", "test": "tset"}}, "has no split 'tset'; it has .*'test'"),
        ({"splits": {"train": "train[:z%]"}}, r"has no split 'train\[:z%\]'"),
        ({"inputs": {"x": "maybe"}}, r"example \d+ of 'train' has none of the modalities x"),
        ({"inputs": {"x": Audio("at")}}, "feature 'at' does not exist"),
        ({"inputs": {"x": Audio("sensor/at")}}, "'sensor/at' does not tell its sample rate"),
        (
            {"inputs": {"x": Text("count")}},
            r"example \d+ of 'train', 'x': it is of type int, not a text",
        ),
        (
            {"inputs": {"x": Image("count")}},
            r"example \d+ of 'train', 'x': it is int64.., not an image",
        ),
        (
            {"inputs": {"x": Image("photo", max_pixels=19)}},
            r"example 0 of 'train', 'record': photo: its size is 20 pixels, more than .* of 19",
        ),
        ({"targets": {"y": Label("name", ("a tea",))}}, r"example \d+ of 'train': target 'y' is"),
        ({"targets": {"y": Value("name")}}, r"example \d+ of 'train': target 'y' is '.*', which"),
    ],
)
def test_bad_arguments_are_refused(builder, options, message):
    with pytest.raises(ValueError, match=message):
        make(builder, **options)


@pytest.mark.parametrize("path", ["photo", "frames", "scenes/view"])
def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded(path):
    f = tfds.features
    photo = f.Image(shape=(None, None, 1), encoding_format="png")
    features = f.FeaturesDict(
        {"photo": photo, "frames": f.Sequence(photo), "scenes": f.Sequence({"view": photo})}
    )
    # Only the header is large: the pixels behind it are missing, so that nothing could decode it.
    size = struct.pack(">II", 13_000, 13_000)
    small = png(np.zeros((2, 3, 1), np.uint8)).getvalue()
    chunk = b"IHDR" + size + small[24:29]
    bomb = small[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]

    def make_record(large):
        image = {p: io.BytesIO(bomb if p == large else small) for p in ("photo", "frames")}
        view = io.BytesIO(bomb if large == "scenes/view" else small)
        scenes = [{"view": io.BytesIO(small)}, {"view": view}]
        return features.serialize_example(
            {"photo": image["photo"], "frames": [image["frames"]], "scenes": scenes}
        )

    source = Decoding([make_record(None), make_record(path)], features)
    assert np.shape(source[0]["scenes"]["view"]) == (2, 2, 3, 1)
    message = f"{path}: its size is 169,000,000 pixels, .* give max_pixels=169000000 or more"
    with pytest.raises(LimitError, match=message):
        source[1]


def test_other_file_formats_are_refused(tmp_path, builder):
    make(builder, {"photo": "photo"}, {"kind": "kind"})
    info = tmp_path / "toy" / "1.0.0"
    info.mkdir(parents=True)
    for file in pathlib.Path(builder.data_dir).iterdir():
        content = file.read_bytes()
        if file.name == "dataset_info.json":
            content = content.replace(b"array_record", b"tfrecord")
        (info / file.name).write_bytes(content)
    other = Toy(data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="not stored as array records, so it cannot be read in"):
        make(other, {"photo": "photo"}, {"kind": "kind"})


def test_shared_examples_are_warned_of(builder):
    splits = {"train": "train", "test": "train[:3]"}
    with pytest.warns(UserWarning, match=r"3 of the 3 examples of 'test' have the same inputs"):
        make(builder, {"photo": "photo"}, {"count": "count"}, splits=splits)


def test_scan_cache_keeps_the_first_pass(builder, tmp_path, monkeypatch):
    options = {"in_memory": False, "scan_cache": tmp_path}
    first = make(builder, **options)
    monkeypatch.setattr(
        "mmjax.data.load.scan_split._record_example", lambda *arguments: pytest.fail("read again")
    )
    again = make(builder, **options)
    assert again.tasks == first.tasks
    assert again.modalities == first.modalities
    batches = [data.splits["train"].take(np.arange(4)) for data in (first, again)]
    jax.tree.map(np.testing.assert_array_equal, *batches)


@pytest.mark.slow
def test_it_trains_streamed(builder, tmp_path):
    inputs = {name: INPUTS[name] for name in ("photo", "at")}
    targets = {name: TARGETS[name] for name in ("kind", "tags", "weight")}
    model = mmjax.Model(
        encoders={name: MLPEncoder((4,)) for name in inputs},
        fusion=Concat(),
        heads={"kind": Classification(3), "tags": MultiLabel(3), "weight": Regression()},
    )
    experiment = mmjax.Experiment(
        make(builder, inputs, targets, in_memory=False), model, optax.adam(1e-2), epochs=1,
        batch_size=10, stream=True,
    )  # fmt: skip
    fitted = mmjax.fit(experiment, tmp_path / "run", devices=jax.devices()[:1])
    assert np.isfinite(fitted.test[0]["loss"])
