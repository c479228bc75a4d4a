import re

import jax
import numpy as np
import pytest

from mmjax.data.checks.validate import check_label_variety, validate_split
from mmjax.data.dataset import Modality, Task
from mmjax.types import Batch

MODALITIES = {"picture": Modality((4, 3)), "words": Modality((5,), sequence=True)}
TASKS = {
    "kind": Task("classification", tuple("abc")),
    "tags": Task("multilabel", tuple("xy")),
    "size": Task("regression"),
}


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    some = np.array([True, True, False, True])
    return Batch(
        inputs={"picture": rng.random((4, 4, 3), np.float32), "words": np.ones((4, 5), np.int32)},
        present={"picture": some.copy(), "words": ~some | [True, False, False, False]},
        lengths={"words": np.array([5, 0, 1, 99])},
        targets={
            "kind": np.array([0, 2, 1, 7], np.int32),
            "tags": np.array([[0, 1], [1, 1], [0, 0], [5, 5]], np.int32),
            "size": np.array([1.0, -2.0, np.nan, 3.0], np.float32),
        },
        labeled={
            "kind": np.array([True, True, True, False]),
            "tags": np.array([True, True, True, False]),
            "size": some.copy(),
        },
    )


def check(batch, modalities=MODALITIES, tasks=TASKS):
    validate_split("toy", "train", batch, modalities, tasks)


def test_good_data_pass_whatever_the_missing_parts_hold(batch):
    batch.inputs["picture"][2] = np.nan
    check(batch)


def test_large_finite_inputs_pass(batch):
    batch.inputs["picture"][:] = np.finfo(np.float32).max  # their sum overflows
    check(batch)


def put(part, key, index, value):
    def spoil(batch):
        getattr(batch, part)[key][index] = value

    return spoil


def swap(part, key, change):
    def spoil(batch):
        getattr(batch, part)[key] = change(getattr(batch, part)[key])

    return spoil


def drop(part, key):
    return lambda batch: getattr(batch, part).pop(key)


BAD = [
    (
        put("targets", "kind", 1, 3),
        "target of task 'kind' is 3 in row 1; it must be 0 to 2.",
    ),
    (
        put("targets", "kind", 2, -1),
        "target of task 'kind' is -1 in row 2; it must be 0 to 2.",
    ),
    (
        swap("targets", "kind", lambda y: y.astype(np.float32)),
        "target of task 'kind' has type float32; it must be integer.",
    ),
    (
        swap("targets", "kind", lambda y: y[:, None]),
        "target of task 'kind' has shape (4, 1); it must be (4,).",
    ),
    (
        put("targets", "tags", (1, 0), 2),
        "target of task 'tags' is 2 in row 1, class 0; it must be 0 or 1.",
    ),
    (
        swap("targets", "tags", lambda y: y[:, :1]),
        "target of task 'tags' has shape (4, 1); it must be (4, 2).",
    ),
    (
        put("targets", "size", 3, np.nan),
        "target of task 'size' is nan in row 3; every number must be finite.",
    ),
    (
        put("targets", "size", 0, -np.inf),
        "target of task 'size' is -inf in row 0; every number must be finite.",
    ),
    (
        swap("targets", "size", lambda y: np.zeros(4, np.int32)),
        "target of task 'size' has type int32; a regression needs floating-point numbers.",
    ),
    (
        put("inputs", "picture", (3, 2, 1), np.inf),
        "modality 'picture' has inf in row 3; every number must be finite.",
    ),
    (
        swap("inputs", "picture", lambda x: x[:, :3]),
        "modality 'picture' has shape (4, 3, 3); it must be (4, 4, 3).",
    ),
    (
        put("lengths", "words", 0, 0),
        "length of modality 'words' is 0 in row 0; it must be 1 to 5.",
    ),
    (
        put("lengths", "words", 2, 6),
        "length of modality 'words' is 6 in row 2; it must be 1 to 5.",
    ),
    (
        swap("lengths", "words", lambda n: n.astype(float)),
        "length of modality 'words' has type float64; it must be integer.",
    ),
    (drop("lengths", "words"), "modality 'words' is a sequence and has no lengths."),
    (
        put("present", "picture", 1, False),
        "row 1 has none of the modalities picture, words; every example needs at least one.",
    ),
    (
        swap("present", "words", lambda p: p.astype(np.int32)),
        "present of modality 'words' has type int32; it must be bool.",
    ),
    (
        swap("labeled", "kind", lambda p: p[:2]),
        "labeled of task 'kind' has shape (2,); it must be (4,).",
    ),
    (drop("inputs", "words"), "it has no modality 'words'; it has picture, words."),
    (drop("targets", "kind"), "it has no task 'kind'; it has size, tags."),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_data_are_refused(batch, spoil, message):
    spoil(batch)
    with pytest.raises(ValueError, match="^" + re.escape("toy, split 'train': " + message) + "$"):
        check(batch)


def test_an_empty_split_is_refused(batch):
    empty = Batch(*({k: v[:0] for k, v in part.items()} for part in batch))
    with pytest.raises(ValueError, match=r"toy, split 'train': it has no examples\."):
        check(empty)


def test_only_what_is_used_is_looked_at(batch):
    batch.inputs["words"] = None
    batch.targets["kind"][:] = 99
    batch.present["picture"][:] = True
    check(batch, {"picture": MODALITIES["picture"]}, {"tags": TASKS["tags"]})


def test_a_training_split_must_have_labels_of_more_than_one_class(batch):
    check_label_variety("toy", "train", batch, TASKS)
    batch.targets["kind"][:] = [2, 2, 2, 0]  # the last row is unlabeled
    message = "toy, split 'train': task 'kind' has labels of one class only, 'c'. There is nothing"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        check_label_variety("toy", "train", batch, TASKS)
    check_label_variety("toy", "train", batch, {"size": TASKS["size"]})
    batch.labeled["size"][:] = False
    with pytest.raises(ValueError, match="task 'size' has no labels"):
        check_label_variety("toy", "train", batch, {"size": TASKS["size"]})


def test_other_splits_of_one_class_are_warned_of(batch):
    batch.targets["kind"][:] = 1
    batch.labeled["tags"][:] = False
    with pytest.warns(UserWarning) as said:
        check_label_variety("toy", "test", batch, TASKS)
    assert [str(warning.message) for warning in said] == [
        "toy, split 'test': task 'kind' has labels of one class only, 'b'.",
        "toy, split 'test': task 'tags' has no labels.",
    ]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_lies_behind_the_end_of_a_sequence_may_be_anything(batch, kind, value):
    with np.errstate(over="ignore"):
        batch.inputs["words"] = np.ones((4, 5), kind)
        batch.inputs["words"][2, 1:] = value  # of length 1
        batch.inputs["words"][1] = value  # absent
        check(batch)
        batch.inputs["words"][2, 0] = value
        shown = "beyond 32 bits" if kind is np.float64 and value == 1e300 else "every number must"
        with pytest.raises(ValueError, match=f"modality 'words' has .* in row 2.*{shown}"):
            check(batch)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 4, 3), complex), "modality 'picture' has type complex128; it must be real"),
        (np.ones((4, 4, 3), "M8[s]"), r"has type datetime64\[s\]; it must be real numbers"),
        (np.ones((4, 4, 3), "m8[s]"), r"has type timedelta64\[s\]; it must be real numbers"),
        (np.zeros((4, 4, 3), [("a", "f4")]), "it must be real numbers"),
        (np.full((4, 4, 3), None), "has type object; it must be real numbers"),
        (np.ones((4, 4, 3), np.dtype("f4").newbyteorder()), "machine.s byte order"),
        (np.full((4, 4, 3), 2**31), "has 2147483648 in row 0, which is beyond 32 bits"),
        (np.full((4, 4, 3), -(2**31) - 1), "has -2147483649 in row 0, which is beyond 32 bits"),
        (np.full((4, 4, 3), 2**63, np.uint64), "has 9223372036854775808 in row 0"),
        (np.full((4, 4, 3), -1e39), "has -1e[+]39 in row 0, which is beyond 32 bits"),
    ],
)
def test_numbers_that_jax_would_change_are_refused(batch, array, message):
    batch.inputs["picture"] = array
    with pytest.raises(ValueError, match=f"toy, split 'train': .*{message}"):
        check(batch)


def test_the_largest_numbers_of_32_bits_pass(batch):
    for kind in (np.int64, np.uint64, np.float64, np.float16, jax.numpy.bfloat16):
        batch.inputs["picture"] = np.ones((4, 4, 3)).astype(kind)
        check(batch)
    batch.inputs["picture"] = np.full((4, 4, 3), 2**31 - 1)
    check(batch)
    batch.inputs["picture"] = np.full((4, 4, 3), np.finfo(np.float32).max, np.float64)
    check(batch)


def test_a_target_beyond_float32_is_refused(batch):
    batch.targets["size"] = np.array([1.0, 1e39, 1e300, 3.0])  # that of row 2 is not labeled
    with pytest.raises(ValueError, match=r"target of task 'size' has 1e\+39 in row 1, which is b"):
        check(batch)
