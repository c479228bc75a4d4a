import re

import jax
import numpy as np
import optax
import pytest

import mmjax
from mmjax.data.checks.validate import validate_split
from mmjax.data.dataset import Modality, Task
from mmjax.data.load.from_arrays import from_arrays
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, MultiLabel, Regression

SIZES = {"train": 40, "validation": 12, "test": 14}
INPUTS = ("vector", "walk", "word", "photo")
TARGETS = ("kind", "size", "tags")


def part(seed, examples, **changes):
    """All kinds of arrays, with all kinds of gaps."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, examples)
    vector = rng.normal(5.0, 3.0, (examples, 4))
    vector[1] = np.nan
    arrays = {
        "vector": vector,
        "walk": [rng.normal(size=(rng.integers(2, 6), 3)) for _ in range(examples)],
        "word": ["äpfel", *["pear", "fig"] * examples][:examples],
        "photo": rng.integers(0, 256, (examples, 4, 4, 1)).astype(np.uint8),
        "kind": [None, *np.array(["low", "mid", "top"])[kind[1:]]],
        "size": np.ma.masked_array(kind + 0.25, np.arange(examples) == 2),
        "tags": np.stack([kind == 0, kind != 1], axis=1).astype(int),
    }
    arrays["walk"][3] = None
    return arrays | changes


def parts(**changes):
    return {
        split: part(seed, n, **(changes if split == "train" else {}))
        for seed, (split, n) in enumerate(SIZES.items())
    }


def make(splits=None, inputs=INPUTS, targets=TARGETS, **options):
    return from_arrays(splits or parts(), inputs, targets, **options)


def batch_of(data, split="train"):
    return data.splits[split].batch


def test_everything_is_inferred_and_told(capsys):
    data = make(name="told")
    assert data.modalities == {
        "vector": Modality((4,)),
        "walk": Modality((5, 3), sequence=True),
        "word": Modality((6,), True, ("padding", *(f"0x{byte:02x}" for byte in range(256)))),
        "photo": Modality((4, 4, 1)),
    }
    assert data.tasks == {
        "kind": Task("classification", ("low", "mid", "top")),
        "size": Task("regression"),
        "tags": Task("multilabel", ("0", "1")),
    }
    for split, source in data.splits.items():
        assert len(source) == SIZES[split]
        validate_split(data.name, split, source.batch, data.modalities, data.tasks)
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("told: 40 train, 12 validation, 14 test\n")
    for line in (
        "vector  4; present in 97.5% of train",
        "walk    sequence, up to 5 x 3; present in 97.5% of train",
        "kind    classification, 3 classes: low, mid, top; labeled in 97.5% of train",
    ):
        assert line in told.err
    make(name="told")
    assert capsys.readouterr().err == ""  # once is enough


def test_the_values_arrive_in_their_places():
    raw, batch = part(0, 40), batch_of(make())
    assert [np.flatnonzero(~v).tolist() for v in batch.present.values()] == [[1], [3], [], []]
    assert np.flatnonzero(~batch.labeled["kind"]).tolist() == [0]
    assert np.flatnonzero(~batch.labeled["size"]).tolist() == [2]
    np.testing.assert_array_equal(batch.inputs["photo"], raw["photo"])
    for i in range(1, 40):
        assert ["low", "mid", "top"][batch.targets["kind"][i]] == raw["kind"][i]
        word = batch.inputs["word"][i, : batch.lengths["word"][i]]
        assert bytes((word - 1).astype(np.uint8)).decode() == raw["word"][i]
        assert i == 3 or batch.lengths["walk"][i] == len(raw["walk"][i])
    np.testing.assert_array_equal(batch.targets["tags"], raw["tags"])


def test_statistics_are_those_of_train_without_what_is_missing():
    data = make()
    raw = parts()
    mean, deviation = (f(raw["train"]["vector"], axis=0) for f in (np.nanmean, np.nanstd))
    for split in SIZES:
        expected = np.nan_to_num((raw[split]["vector"] - mean) / deviation)
        np.testing.assert_allclose(batch_of(data, split).inputs["vector"], expected, atol=1e-5)
    frames = np.concatenate([w for w in raw["train"]["walk"] if w is not None])
    batch = batch_of(data)
    first = (raw["train"]["walk"][0] - frames.mean(axis=0)) / frames.std(axis=0)
    np.testing.assert_allclose(batch.inputs["walk"][0, : len(first)], first, atol=1e-5)
    assert (batch.inputs["walk"][0, len(first) :] == 0).all()


def test_what_is_standardized_can_be_chosen():
    raw = part(0, 40)
    plain = batch_of(make(standardize=()))
    np.testing.assert_allclose(plain.inputs["vector"][2:], raw["vector"][2:], rtol=1e-6)
    pixels = batch_of(make(standardize=("photo",))).inputs["photo"]
    assert pixels.dtype == np.float32 and abs(pixels.mean()) < 1e-5
    with pytest.raises(ValueError, match="standardize names 'phota'; the inputs are"):
        make(standardize=("phota",))


def test_masks_and_lengths_of_their_own_arrays():
    rng = np.random.default_rng(0)

    def some(n):
        return {
            "x": rng.normal(size=(n, 5, 2)),
            "n": np.arange(n) % 6,
            "has_x": np.arange(n) % 4 != 3,
            "z": rng.normal(size=n),
            "y": np.arange(n) % 2,
            "has_y": np.arange(n) % 5 != 0,
        }

    data = from_arrays(
        {split: some(n) for split, n in SIZES.items()}, ("x", "z"), ("y",), lengths={"x": "n"},
        present={"x": "has_x"}, labeled={"y": "has_y"}, name="masks",
    )  # fmt: skip
    batch, i = batch_of(data), np.arange(40)
    assert data.modalities == {"x": Modality((5, 2), sequence=True), "z": Modality((1,))}
    np.testing.assert_array_equal(batch.present["x"], (i % 4 != 3) & (i % 6 != 0))
    np.testing.assert_array_equal(batch.lengths["x"], np.where(batch.present["x"], i % 6, 0))
    np.testing.assert_array_equal(batch.labeled["y"], i % 5 != 0)
    beyond = np.arange(5)[None] >= batch.lengths["x"][:, None]
    assert (batch.inputs["x"][beyond] == 0).all()


@pytest.mark.parametrize(
    ("values", "task", "target"),
    [
        ([3, 7, 3, 10], Task("classification", ("3", "7", "10")), [0, 1, 0, 2]),
        ([True, False, True, True], Task("classification", ("False", "True")), [1, 0, 1, 1]),
        (np.array(["b", "a", "b", "b"]), Task("classification", ("a", "b")), [1, 0, 1, 1]),
        ([1.5, None, 2, -1], Task("regression"), [1.5, 0, 2, -1]),
        (np.array([1.0, np.nan, 2.0, 3.0]), Task("regression"), [1, 0, 2, 3]),
        ([[0, 1], None, [1, 1]], Task("multilabel", ("0", "1")), [[0, 1], [0, 0], [1, 1]]),
    ],
)
def test_kinds_of_targets(values, task, target):
    splits = {"train": {"x": np.arange(float(len(values))), "y": values}}
    data = from_arrays(splits, ("x",), ("y",), name="kinds")
    assert data.tasks["y"] == task
    np.testing.assert_array_equal(batch_of(data).targets["y"], target)


def test_whole_numbers_are_indices_into_named_classes_and_not_into_numbered_ones():
    splits = {"train": {"x": np.arange(4.0), "y": [0, 1, 2, 1]}}
    for classes, target in {("a", "b", "c"): [0, 1, 2, 1], ("2", "1", "0"): [2, 1, 0, 1]}.items():
        tasks = {"y": Task("classification", classes)}
        data = from_arrays(splits, ("x",), ("y",), tasks=tasks, name="classes")
        np.testing.assert_array_equal(batch_of(data).targets["y"], target)


def test_a_given_modality_decides_what_cannot_be_told():
    walk = Modality((9, 3), sequence=True)
    data = make(modalities={"walk": walk})
    assert data.modalities["walk"] == walk and batch_of(data).inputs["walk"].shape == (40, 9, 3)
    with pytest.raises(ValueError, match=r"'walk' is Modality.*does not fit the given"):
        make(modalities={"walk": Modality((4, 3), sequence=True)})


def test_npz_files_are_read_and_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    paths = {}
    for split, arrays in parts().items():
        paths[split] = tmp_path / f"{split}.npz"
        np.savez(paths[split], x=arrays["photo"], y=arrays["tags"])
    data = from_arrays({s: str(p) for s, p in paths.items()}, ("x",), ("y",), name="stored")
    np.testing.assert_array_equal(batch_of(data).targets["y"], parts()["train"]["tags"])
    np.savez(paths["test"], x=np.array([Trap()] * 14), y=np.zeros((14, 2), int))
    with pytest.raises(ValueError, match=r"test\.npz: 'x' holds Python objects|test\.npz: x holds"):
        from_arrays(paths, ("x",), ("y",))
    whole = paths["train"].read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense", whole[:200] + b"?" + whole[201:]):
        paths["test"].write_bytes(damaged)
        with pytest.raises(ValueError, match=r"test\.npz: "):
            from_arrays(paths, ("x",), ("y",))
    with pytest.raises(FileNotFoundError, match=r"File .*gone\.npz does not exist"):
        from_arrays({"train": tmp_path / "gone.npz"}, ("x",), ("y",))


RAGGED = [np.zeros((3, 2))] * 5 + [np.zeros((3, 4))] + [np.ones((3, 2))] * 34

BAD = [
    ({"walk": RAGGED}, "row 5 of 'train': modality 'walk' has shape (3, 4), but (3, 2) at row 0"),
    ({"walk": [[[1, 2, 3], [4]]] * 40}, "row 0 of 'train': 'walk' is ragged itself"),
    ({"walk": [{}] * 40}, "row 0 of 'train': 'walk' has type object"),
    (
        {"word": [b"fig", b"p\xff", *[b"pear"] * 38]},
        "row 1 of 'train': 'word': the text is not UTF-8: byte 0xff at offset 1.",
    ),
    ({"vector": np.zeros((39, 4))}, "split 'train' has arrays of several sizes: {'vector': 39, "),
    (
        {"vector": np.zeros((40, 5))},
        "row 0 of 'validation': modality 'vector' has shape (4,), but (5,) at row 0 of 'train'",
    ),
    ({"kind": ["low"] * 40}, "target 'kind' has one class only in the training split, 'low'"),
    ({"kind": [None] * 40}, "target 'kind' has no value in the training split"),
    (
        {"kind": ["low", "mid"] * 20},
        "row 2 of 'validation': target 'kind' is 'top', which is none of its 2 classes: low, mid.",
    ),
    ({"kind": ["low", 3] * 20}, "target 'kind' has values of several types: ['int', 'str']"),
    (
        {"tags": np.full((40, 2), 2)},
        "target 'tags' has lists of whole numbers that are not 0 or 1; give floating-point",
    ),
    (
        {"size": np.array([np.inf, 1.0] * 20)},
        "row 0 of 'train': target 'size' is inf, which is not a finite number",
    ),
    (
        {"vector": np.where(np.eye(40, 4) > 0, np.nan, 1.0)},
        "split 'train': modality 'vector' has nan in row 0",
    ),
    (
        {"vector": np.ma.masked_array(np.ones((40, 4)), np.eye(40, 4))},
        "row 0 of 'train': 'vector' is masked in part",
    ),
    ({"vector": np.full((40, 4), np.nan)}, "no training example has modality 'vector'"),
    ({"vector": np.full((40, 4), 2**40)}, "has 1099511627776 in row 0, which is beyond 32 bits"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arrays_are_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(parts(**changes))


def test_bad_arguments_are_refused():
    for options, message in (
        ({"inputs": ("vectr",)}, "split 'train' has no array 'vectr', only"),
        ({"targets": ()}, "inputs and targets each need at least one array"),
        ({"lengths": {"wolk": "n"}}, "lengths names 'wolk'; the inputs are"),
        ({"labeled": {"size": "kind"}}, "'kind' of split 'train' is"),
        ({"splits": {"test": part(0, 4)}}, "arrays has no split 'train', only ['test']"),
        (
            {"splits": parts() | {"test": {k: v[:0] for k, v in part(0, 9).items()}}},
            "The split 'test' of arrays is empty",
        ),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make(**options)


def test_an_example_without_any_modality_is_refused():
    with pytest.raises(ValueError, match="row 1 has none of the modalities vector; every"):
        make(inputs=("vector",))


def test_the_same_example_in_two_splits_is_warned_of():
    splits = {s: {k: p[k] for k in ("photo", "vector", "kind")} for s, p in parts().items()}
    for name in ("photo", "vector"):
        splits["test"][name][[3, 4]] = splits["train"][name][[7, 5]]
    splits["validation"]["photo"][2] = splits["train"]["photo"][2]  # but another vector
    said = (
        "2 of the 14 examples of 'test' .* of 'train', first row 3 of 'test' and row 7 of 'train'"
    )
    with pytest.warns(UserWarning, match=said) as warned:
        from_arrays(splits, ("vector", "photo"), ("kind",))
    assert len(warned) == 1


@pytest.mark.slow
def test_it_trains(tmp_path):
    encoders = {name: MLPEncoder((4,)) for name in INPUTS}
    heads = {"kind": Classification(3), "size": Regression(), "tags": MultiLabel(2)}
    model = mmjax.Model(encoders, fusion=Concat(), heads=heads)
    experiment = mmjax.Experiment(make(), model, optax.adam(1e-2), epochs=1, batch_size=16)
    fitted = mmjax.fit(experiment, tmp_path, devices=jax.devices()[:1])
    assert np.isfinite(fitted.test[0]["loss"])
