"""Arrays, columns and frames of other packages give what NumPy's arrays of their values give."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse

from mmjax.data.load.arrays.foreign_types import convert_to_numpy
from mmjax.data.load.arrays.pandas_indexes import check_same_index
from mmjax.data.load.from_arrays import from_arrays
from mmjax.data.load.from_table import from_table
from mmjax.data.load.hints import check_splits

pandas = pytest.importorskip("pandas")
VALUES = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def load(x, y, name):
    part = {"x": x, "y": y}
    return from_arrays(
        dict.fromkeys(("train", "validation", "test"), part), ("x",), ("y",), name=name
    )


def to_torch(values):
    return pytest.importorskip("torch").tensor(values)


def to_polars(values):
    polars = pytest.importorskip("polars")
    return polars.DataFrame(values) if values.ndim > 1 else polars.Series(values)


def to_pandas(values):
    return pandas.DataFrame(values) if values.ndim > 1 else pandas.Series(values)


KINDS = {"jax": jnp.asarray, "pandas": to_pandas, "polars": to_polars, "torch": to_torch}


@pytest.mark.filterwarnings("ignore:.*have the same inputs", "ignore:.*gives the target 'y' away")
@pytest.mark.parametrize(
    "kind",
    ["jax", "pandas", "polars", pytest.param("torch", marks=pytest.mark.reference)],
)
@pytest.mark.parametrize("target", [np.arange(40) % 3, VALUES[:, 0], np.arange(40) % 2 > 0])
def test_arrays_of_other_packages_equal_those_of_numpy(kind, target):
    convert = KINDS[kind]
    right, data = load(VALUES, target, kind), load(convert(VALUES), convert(target), kind)
    assert (data.modalities, data.tasks) == (right.modalities, right.tasks)
    jax.tree.map(
        np.testing.assert_array_equal, data.splits["train"].batch, right.splits["train"].batch
    )


@pytest.mark.filterwarnings("ignore:.*have the same inputs")
def test_a_frame_is_its_values_and_never_its_names():
    frame = pandas.DataFrame(np.random.default_rng(1).normal(size=(40, 40)))
    assert load(frame, np.arange(40) % 2, "square").modalities["x"].shape == (40,)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pandas.Series([3, None, 5], dtype="Int64"), [3, None, 5]),
        (pandas.Series([True, None], dtype="boolean"), [True, None]),
        (pandas.Series(["b", None], dtype="string"), ["b", None]),
        (pandas.Series(["b", float("nan")], dtype=object), ["b", None]),
        (pandas.Categorical([7, None, 5], categories=[7, 5]), [7, None, 5]),
        ([jnp.float32(1.5), pandas.NA, pandas.NaT], [1.5, None, None]),
        (np.array([1, pandas.NA], object), [1, None]),
    ],
)
def test_gaps_of_columns_are_none_or_masked(column, expected):
    converted = convert_to_numpy(column, "x")
    cells = converted.tolist() if isinstance(converted, np.ndarray) else converted
    assert [None if cell != cell else cell for cell in cells] == expected


def test_types_that_only_jax_has_are_widened():
    x = np.array([1.5, -2.0])
    assert convert_to_numpy(x.astype(ml_dtypes.bfloat16), "x").dtype == np.float32
    np.testing.assert_array_equal(convert_to_numpy(jnp.asarray(x, jnp.bfloat16), "x"), x)


def test_matrices_are_arrays_and_sparse_ones_are_refused():
    x = np.arange(6.0).reshape(3, 2)
    with pytest.warns(PendingDeprecationWarning):
        converted = convert_to_numpy(np.matrix(x), "x")
    assert type(converted) is np.ndarray and np.array_equal(converted, x)
    with pytest.raises(ValueError, match=r"x is a sparse csr_array; give its toarray\(\)"):
        convert_to_numpy(scipy.sparse.csr_array(x), "x")
    indexed = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}).set_index("a")
    with pytest.raises(ValueError, match=r"no column 'a'; it has b. It is in the index"):
        from_table(indexed, {"a": "a"}, {"b": "b"})


def test_columns_with_different_indexes_are_refused():
    x, y = pandas.Series([1.0, 2.0], index=[5, 6]), pandas.Series(["p", "q"], index=[6, 5])
    refusal = r"'x' and 'y' have different indexes, .*reset_index\(drop=True\) keeps the order"
    with pytest.raises(ValueError, match=f"^the dictionary: {refusal}"):
        from_table({"x": x, "y": y}, {"x": "x"}, {"y": "y"})
    with pytest.raises(ValueError, match=f"^split 'train': {refusal}"):
        from_arrays({"train": {"x": x, "y": y}}, ("x",), ("y",))
    check_same_index("frame", {"x": x, "y": y.loc[[5, 6]].set_axis([5, 6]), "z": [1, 2]})


def test_frames_with_other_columns_and_keys_are_refused():
    frame = pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    with pytest.raises(ValueError, match="x is a DataFrame whose column 'b' is not of numbers"):
        convert_to_numpy(frame, "x")
    with pytest.raises(ValueError, match=r"x is a .*, which has no NumPy equivalent"):
        convert_to_numpy(jax.random.key(0), "x")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"x": VALUES, "y": VALUES}, "got the arrays ['x', 'y'] without a split; it needs"),
        (pandas.DataFrame({"x": [1], "y": [2]}), "from_arrays got a DataFrame; it needs {split"),
        ([VALUES], "from_arrays got a list; it needs {split: arrays}, such as {'train'"),
    ],
)
def test_what_is_not_splits_is_refused_with_the_right_form(splits, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_splits(splits, ("x",))


@pytest.mark.filterwarnings("ignore:.*have the same inputs", "ignore:.*gives the target 'y' away")
def test_notes_on_targets(capsys):
    flat = load(VALUES, np.arange(40) % 2, "flat")
    column = load(VALUES, (np.arange(40) % 2)[:, None], "column")
    assert column.tasks == flat.tasks
    load(VALUES, np.arange(40) % 2 + 0.0, "float")
    load(VALUES, np.arange(40), "count")
    said = capsys.readouterr().err
    assert "column: target 'y' has one value per row, so (n, 1) is read as (n,)" in said
    assert "float: target 'y' is a regression, as its type is floating-point; its 2 values" in said
    assert "count: target 'y' has 40 whole numbers for classes; if it is a count" in said
    with pytest.warns(UserWarning, match="'y' is the target of task 'y' and an input of modality"):
        from_arrays({"train": {"y": np.arange(40.0)}}, ("y",), ("y",))
