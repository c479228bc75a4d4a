"""Lengths, masks, types and magnitudes of arrays: treated right, or refused by name."""

import re

import numpy as np
import pytest

from mmjax.data.load.arrays.columns import read_column
from mmjax.data.load.from_arrays import from_arrays

SIZES = {"train": 24, "validation": 8, "test": 8}


def split(seed, n):
    rng = np.random.default_rng(seed)
    return {
        "walk": rng.normal(size=(n, 5, 2)).astype(np.float32),
        "steps": rng.integers(1, 6, n),
        "vector": rng.normal(size=(n, 3)),
        "here": np.arange(n) % 4 > 0,
        "kind": np.arange(n) % 3,
        "size": rng.normal(size=n),
    }


def made(**changes):
    parts = {s: split(seed, n) for seed, (s, n) in enumerate(SIZES.items())}
    for key, change in changes.items():
        for part in parts.values():
            part[key] = change(part[key])
    return parts


def make(parts, inputs=("walk", "vector"), targets=("kind", "size"), **options):
    options = {"lengths": {"walk": "steps"}, "present": {"vector": "here"}} | options
    return from_arrays(parts, inputs, targets, **options)


def batches(parts, **options):
    return {s: source.batch for s, source in make(parts, **options).splits.items()}


def assert_same(one, other):
    for part, expected in zip(one, other, strict=True):
        assert part.keys() == expected.keys()
        for key in part:
            np.testing.assert_array_equal(part[key], expected[key])


def test_lengths_and_masks_are_kept():
    parts = made()
    for name, batch in batches(parts).items():
        np.testing.assert_array_equal(batch.lengths["walk"], parts[name]["steps"])
        np.testing.assert_array_equal(batch.present["vector"], parts[name]["here"])
        assert batch.lengths["walk"].dtype == np.int32


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_hidden_may_be_anything_and_becomes_zero(hidden):
    parts, spoiled = made(), made()
    for part in spoiled.values():
        part["walk"] = part["walk"].astype(np.float64)
        part["walk"][np.arange(5)[None] >= part["steps"][:, None]] = hidden
        part["vector"][~part["here"]] = hidden
    for one, other in zip(batches(spoiled).values(), batches(parts).values(), strict=True):
        assert_same(one, other)
    for part in spoiled.values():
        part["walk"] = list(part["walk"])
        part["vector"] = list(part["vector"])
    for one, other in zip(batches(spoiled).values(), batches(parts).values(), strict=True):
        assert_same(one, other)


def test_hidden_whole_numbers_may_be_beyond_32_bits():
    parts = made(walk=lambda x: (10 * x).astype(np.int64))
    for part in parts.values():
        part["walk"][np.arange(5)[None] >= part["steps"][:, None]] = 2**40
    batch = batches(parts)["train"]
    assert batch.inputs["walk"].dtype == np.int32
    assert np.abs(batch.inputs["walk"]).max() < 100


def test_a_length_of_zero_is_a_missing_sequence_in_any_sign():
    parts = made()
    parts["train"]["steps"][3] = -0
    batch = batches(parts)["train"]
    assert not batch.present["walk"][3]
    assert batch.lengths["walk"][3] == 0


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2**32 + 1, np.int64), (2**63 + 2, np.uint64), (6, np.int8), (-1, np.int64), (-(2**32), "i8")],
)
def test_lengths_beyond_the_array_are_refused_and_do_not_wrap(value, kind):
    parts = made(steps=lambda x: x.astype(kind))
    parts["test"]["steps"][5] = value
    message = f"row 5 of 'test': 'steps' is {value}; it must be 0 to 5."
    with pytest.raises(ValueError, match=re.escape(message)):
        make(parts)


def test_a_length_beyond_its_own_row_of_a_list_is_refused():
    parts = made()
    rows = [x[:n] for x, n in zip(parts["train"]["walk"], parts["train"]["steps"], strict=True)]
    parts["train"]["walk"] = rows
    row = int(np.flatnonzero(parts["train"]["steps"] < 5)[0])
    parts["train"]["steps"] = parts["train"]["steps"].copy()
    parts["train"]["steps"][row] += 1
    message = (
        f"row {row} of 'train': 'steps' is {len(rows[row]) + 1}; it must be 0 to {len(rows[row])}."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        make(parts)


def test_lengths_of_what_is_missing_may_be_anything():
    parts = made()
    parts["train"]["walk"][2] = np.nan
    parts["train"]["steps"][2] = 2**40
    assert batches(parts)["train"].lengths["walk"][2] == 0


BAD = [
    ("steps", lambda x: x.astype(float), "'steps' of split 'train' is float64[24]; it must be one"),
    ("steps", lambda x: x > 2, "'steps' of split 'train' is bool[24]; it must be one whole number"),
    ("steps", lambda x: np.ma.masked_equal(x, x[0]), "[24] with masked rows; it must be one whole"),
    ("here", lambda x: x.astype(np.uint8), "'here' of split 'train' is uint8[24]; it must be one"),
    ("here", lambda x: x[:, None], "'here' of split 'train' is bool[24, 1]; it must be one bool"),
    ("vector", lambda x: x * 1j, "row 1 of 'train': 'vector' has type complex128; it must be num"),
    ("vector", lambda x: x.astype("M8[s]"), "'vector' has type datetime64[s]; it must be numbers"),
    ("vector", lambda x: x[:, :0], "'vector' of split 'train' has the shape (24, 0); an example"),
    (
        "vector",
        lambda x: x + 1e300,
        "modality 'vector' has 1e+300 in row 1, which is beyond 32 bits; rescale",
    ),
    ("vector", lambda x: list(x + 1e39), "row 1 of 'train': 'vector' has numbers beyond 32 bits"),
    (
        "vector",
        lambda x: np.full(x.shape, 2**31),
        "has 2147483648 in row 1, which is beyond 32 bits",
    ),
    (
        "vector",
        lambda x: np.full(x.shape, 2**63, np.uint64),
        "has 9223372036854775808 in row 1, which is b",
    ),
    ("vector", lambda x: x[0, 0], "split 'train': 'vector' is a float64; it must be an array or a"),
    (
        "vector",
        lambda x: "x" * len(x),
        "split 'train': 'vector' is a str; it must be an array or a",
    ),
    (
        "vector",
        lambda x: dict(enumerate(x)),
        "split 'train': 'vector' is a dict; it must be an arr",
    ),
    (
        "vector",
        lambda x: None,
        "split 'train': 'vector' is a NoneType; it must be an array or a li",
    ),
    (
        "kind",
        lambda x: x * 1j,
        "target 'kind' of split 'train' is of type complex128, which cannot",
    ),
    (
        "kind",
        lambda x: x.astype("M8[D]"),
        "is of type datetime64[D], which cannot be predicted; co",
    ),
    (
        "kind",
        lambda x: x.astype("m8[ns]"),
        "is of type timedelta64[ns], which cannot be predicted;",
    ),
    (
        "kind",
        lambda x: list(x.astype("M8[ns]")),
        "row 0 of 'train': target 'kind' is of type datet",
    ),
    ("kind", lambda x: x.astype([("a", int)]), "give each of its fields as a target of its own"),
    ("kind", lambda x: list(x.astype("M8[D]").tolist()), "'kind' has datetime.date(1970, 1, "),
    (
        "kind",
        lambda x: [{"a": 1}] * len(x),
        "target 'kind' has {'a': 1} of type dict; a class must",
    ),
    (
        "kind",
        lambda x: [1j] * len(x),
        "target 'kind' has 1j of type complex; a class must be a nam",
    ),
    (
        "kind",
        lambda x: [b"\xff", b"a"] * (len(x) // 2),
        "target 'kind' has b'\\xff', which is not U",
    ),
    ("kind", lambda x: [[]] * len(x), "target 'kind' has rows without numbers; leave them None"),
    (
        "size",
        lambda x: x + 1e300,
        "row 0 of 'train': target 'size' is 1e+300, which is beyond floa",
    ),
    (
        "size",
        lambda x: np.where(x > 0, np.inf, x),
        "target 'size' is inf, which is not a finite numbe",
    ),
    ("size", lambda x: [10**400, *x[1:].tolist()], "row 0 of 'train': target 'size' is 1000000000"),
]


@pytest.mark.parametrize(("key", "change", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_types_and_magnitudes_are_refused_by_name(key, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(made(**{key: change}))


@pytest.mark.parametrize("kind", ["f2", ">f4", ">f8", "<f8", "g"])
def test_floats_of_every_width_and_byte_order_become_float32(kind):
    batch = batches(made(vector=lambda x: np.round(x, 1).astype(kind)))["train"]
    narrow = made(vector=lambda x: np.round(x, 1).astype(kind).astype(np.float32))
    expected = batches(narrow)["train"].inputs["vector"]
    x = batch.inputs["vector"]
    assert x.dtype == np.float32 and x.dtype.isnative
    # Double precision is standardized before it is rounded.
    np.testing.assert_allclose(x, expected, atol=0 if "4" in kind or "2" in kind else 1e-6)


@pytest.mark.parametrize("kind", ["?", "i1", ">i2", ">i8", "u2", "u4", "u8"])
def test_whole_numbers_of_every_width_and_byte_order_become_int32(kind):
    batch = batches(made(vector=lambda x: (np.abs(x) * 3).astype(kind)))["train"]
    here = batch.present["vector"]
    expected = (np.abs(made()["train"]["vector"]) * 3).astype(kind).astype(np.int32)
    assert batch.inputs["vector"].dtype == np.int32
    assert batch.inputs["vector"].dtype.isnative
    np.testing.assert_array_equal(batch.inputs["vector"][here], expected[here])


def test_views_that_are_not_contiguous_give_what_copies_give():
    views = made(
        vector=lambda x: np.asfortranarray(x)[:, ::-1], walk=lambda x: x.transpose(0, 1, 2)
    )
    copies = made(vector=lambda x: x[:, ::-1].copy())
    for one, other in zip(batches(views).values(), batches(copies).values(), strict=True):
        assert_same(one, other)


def test_names_must_be_distinct():
    with pytest.raises(ValueError, match="inputs names 'vector' twice; name every array once"):
        make(made(), inputs=("vector", "vector"), lengths={})


@pytest.mark.parametrize("padding", [0.0, np.nan, 7.0])
@pytest.mark.parametrize("form", [np.asarray, list])
def test_padding_does_not_decide_whether_a_sequence_is_missing(form, padding):
    """Row 1 is NaN up to its end."""
    x = np.ones((3, 4, 2), np.float32)
    x[1] = np.nan
    x[:, 3:] = padding
    column = read_column("train", "x", form(x), lengths=("n", np.array([3, 3, 0])))
    np.testing.assert_array_equal(column.present, [True, False, False])
    np.testing.assert_array_equal(np.where(column.present, column.lengths, 0), [3, 0, 0])
    part = {"x": form(x), "n": np.array([3, 3, 0]), "z": np.arange(3.0), "y": [0, 1, 0]}
    data = from_arrays({"train": part}, ("x", "z"), ("y",), lengths={"x": "n"}, standardize=())
    whole = data.splits["train"].batch.inputs["x"]
    np.testing.assert_array_equal(whole.sum((1, 2)), [6, 0, 0])
