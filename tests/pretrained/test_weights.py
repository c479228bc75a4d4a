"""Weights from files: every kind, names and layouts, and refusals before anything is read."""

import json
import struct

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors.numpy import save_file

from mmjax.pretrained import Rename, weights

RNG = np.random.default_rng(0)
TREE = {
    "dense": {"kernel": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)},
    "layers": {"scale": np.zeros((3, 4), np.float32)},
}
ARRAYS = {
    "net.fc.weight": RNG.normal(size=(2, 3)).astype(np.float32),
    "net.fc.bias": RNG.normal(size=2).astype(np.float32),
    **{f"net.layer.{i}.norm": RNG.normal(size=4).astype(np.float32) for i in range(3)},
}
NAMES = (
    Rename("net.fc.weight", "dense/kernel", "linear"),
    Rename("net.fc.bias", "dense/bias"),
    Rename("net.layer.{i}.norm", "layers/scale"),
)


def check_loaded(tree):
    np.testing.assert_array_equal(tree["dense"]["kernel"], ARRAYS["net.fc.weight"].T)
    np.testing.assert_array_equal(tree["dense"]["bias"], ARRAYS["net.fc.bias"])
    rows = [ARRAYS[f"net.layer.{i}.norm"] for i in range(3)]
    np.testing.assert_array_equal(tree["layers"]["scale"], rows)


def save_shards(folder, arrays):
    first = dict(list(arrays.items())[:2])
    places = {}
    for part, some in (("a.safetensors", first), ("b.safetensors", arrays)):
        some = {name: array for name, array in some.items() if name not in places}
        save_file(some, folder / part)
        places |= dict.fromkeys(some, part)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def save_named(kind, folder, arrays):
    if kind == "shards":
        return save_shards(folder, arrays)
    path = folder / f"model.{kind}"
    if kind == "safetensors":
        save_file(arrays, path)
    elif kind == "npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(serialization.msgpack_serialize(dict(arrays)))
    return path


@pytest.mark.parametrize("kind", ["safetensors", "shards", "npz", "msgpack"])
def test_names_layouts_and_layers(kind, tmp_path):
    path = save_named(kind, tmp_path, ARRAYS)
    check_loaded(weights(path, NAMES).apply(TREE))
    check_loaded(weights(str(path), NAMES).apply(jax.tree.map(jnp.asarray, TREE)))
    assert not TREE["dense"]["bias"].any()  # the argument is unchanged


def test_folder_of_one_safetensors_file(tmp_path):
    save_named("safetensors", tmp_path, ARRAYS)
    check_loaded(weights(tmp_path, NAMES).apply(TREE))


@pytest.mark.parametrize("kind", ["msgpack", "orbax", "npz"])
def test_trees_keep_their_paths_and_collections(kind, tmp_path):
    params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.full(4, 2, np.float32)}
    variables = {"params": params, "batch_stats": {"a": {"mean": np.full(3, 5, np.float32)}}}
    path = tmp_path / f"tree.{kind}"
    if kind == "orbax":
        from orbax.checkpoint import v1 as ocp

        ocp.save(path, jax.tree.map(jnp.asarray, variables))
    elif kind == "npz":
        leaves = jax.tree.leaves_with_path(variables)
        names = {jax.tree_util.keystr(k, simple=True, separator="/"): x for k, x in leaves}
        np.savez(path, **names)
    else:
        path.write_bytes(serialization.to_bytes(variables))
    empty = jax.tree.map(np.zeros_like, variables)
    loaded = weights(path).apply(empty["params"])
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    stats = weights(path).apply(empty["batch_stats"], "batch_stats")
    assert stats["a"]["mean"].tolist() == [5, 5, 5]
    part = weights(path, prefix="a/").apply({"kernel": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(part["kernel"], params["a"]["kernel"])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_floats_take_the_type_of_the_parameters(dtype, tmp_path):
    save_file({"x": np.array([0.1, -3.0], dtype)}, tmp_path / "x.safetensors")
    loaded = weights(tmp_path / "x.safetensors").apply({"x": np.zeros(2, np.float32)})
    assert loaded["x"].dtype == jnp.float32
    np.testing.assert_array_equal(loaded["x"], np.array([0.1, -3.0], dtype).astype(np.float32))


def test_kernels_of_convolutions_and_heads(tmp_path):
    """The closed forms: Flax's layers of the renamed kernels are PyTorch's sums over indices."""
    conv, out = RNG.normal(size=(4, 3, 2, 5)), RNG.normal(size=(6, 4))
    save_file({"conv": conv, "out": out, "b": RNG.normal(size=4)}, tmp_path / "x.safetensors")
    names = (
        Rename("conv", "conv/kernel", "conv"),
        Rename("out", "heads/kernel", "linear"),
        Rename("b", "bias", "reshape"),
    )
    tree = {
        "conv": {"kernel": np.zeros((2, 5, 3, 4), np.float32)},
        "heads": {"kernel": np.zeros((2, 2, 6), np.float32)},
        "bias": np.zeros((2, 2), np.float32),
    }
    loaded = weights(tmp_path / "x.safetensors", names).apply(tree)
    x = RNG.normal(size=(1, 2, 5, 3)).astype(np.float32)
    y = nn.Conv(4, (2, 5), padding="VALID", use_bias=False).apply({"params": loaded["conv"]}, x)
    np.testing.assert_allclose(y[0, 0, 0], np.einsum("oihw,hwi->o", conv, x[0]), rtol=1e-5)
    z = RNG.normal(size=(2, 2)).astype(np.float32)
    dense = nn.DenseGeneral(6, axis=(-2, -1), use_bias=False)
    y = dense.apply({"params": loaded["heads"]}, z)
    np.testing.assert_allclose(y, out @ z.reshape(4), rtol=1e-5)


def test_numbers_in_paths_and_the_first_rule_that_matches(tmp_path):
    arrays = {f"s.{s}.l.{i}.w": np.full(2, 10.0 * s + i) for s in range(2) for i in (0, 1, 2, 10)}
    save_file(arrays, tmp_path / "x.safetensors")
    names = (
        Rename("s.{stage}.l.0.w", "stage_{stage}/first"),
        Rename("s.{stage}.l.10.*", None),
        Rename("s.{stage}.l.{layer}.*", "stage_{stage}/*"),
    )
    tree = {f"stage_{s}": {"first": np.zeros(2), "w": np.zeros((2, 2))} for s in range(2)}
    loaded = weights(tmp_path / "x.safetensors", names).apply(tree)
    for s in range(2):
        assert loaded[f"stage_{s}"]["first"].tolist() == [10 * s] * 2
        assert loaded[f"stage_{s}"]["w"][:, 0].tolist() == [10 * s + 1, 10 * s + 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"net.fc.bias": None}, "no array fills: dense/bias"),
        ({"net.head": np.zeros(1)}, "fill no parameter: net.head"),
        (
            {"net.fc.weight": np.zeros((3, 2))},
            r"weight is \(2, 3\), as \(3, 2\) in the file",
        ),
        ({"net.fc.bias": np.zeros(2, np.int32)}, "of type int32, the parameter of float32"),
        ({"net.layer.1.norm": None}, r"the layers \[0, 2\], which are not consecutive"),
        ({"net.layer.3.norm": np.zeros(4)}, r"4 layers for the parameter of shape \(3, 4\)"),
        ({"net.fc.bias": np.array([1, np.nan])}, "'net.fc.bias' has values that are not finite"),
        ({"net.fc.bias": np.array([1, 1e300])}, "'net.fc.bias' has values that are not finite"),
    ],
)
def test_refuses_what_does_not_fit(change, expected, tmp_path):
    arrays = {k: v for k, v in (ARRAYS | change).items() if v is not None}
    save_file(arrays, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=expected):
        weights(tmp_path / "x.safetensors", NAMES).apply(TREE)


def test_patterns_allow_what_does_not_fit(tmp_path):
    arrays = ARRAYS | {"net.head": np.zeros(1), "net.fc.bias": np.zeros(7, np.float32)}
    del arrays["net.fc.weight"]
    save_file(arrays, tmp_path / "x.safetensors")
    loaded = weights(tmp_path / "x.safetensors", NAMES, ("net.head", "dense/*")).apply(TREE)
    assert not loaded["dense"]["kernel"].any() and loaded["dense"]["bias"].shape == (2,)
    np.testing.assert_array_equal(loaded["layers"]["scale"][2], ARRAYS["net.layer.2.norm"])


def make_safetensors(header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def describe(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        make_safetensors({"x": describe([4], 0, 16)})[:-3],
        struct.pack("<Q", 1 << 60) + b"{}",
        make_safetensors(b"[" * 100_000),
        make_safetensors({"x": describe([2], 0, 8), "y": describe([2], 4, 12)}),
        make_safetensors({"x": describe([400], 0, 1600)}),
        make_safetensors({"x": describe([1 << 40, 1 << 40], 0, 16)}),
        make_safetensors({"x": describe([-4], 0, 16)}),
        make_safetensors({"x": describe([4], 0, 16, "F99")}),
        make_safetensors({"x": describe([2], 0, 8)}),
    ],
    ids=[
        "empty",
        "cut",
        "huge_header",
        "deep",
        "overlap",
        "range",
        "overflow",
        "negative",
        "type",
        "trailing",
    ],
)
def test_refuses_damaged_safetensors(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors is damaged"):
        weights(path).apply({"x": np.zeros(4, np.float32)})


def test_names_in_files_never_become_paths(tmp_path):
    save_file({"../../x": np.ones(1, np.float32)}, tmp_path / "x.safetensors")
    before = sorted(tmp_path.rglob("*"))
    tree = {"..": {"..": {"x": np.zeros(1, np.float32)}}}
    assert weights(tmp_path / "x.safetensors").apply(tree)[".."][".."]["x"] == 1
    assert sorted(tmp_path.rglob("*")) == before
    save_shards(tmp_path, ARRAYS)
    for part in ("../a.safetensors", "/a.safetensors", "a.bin", "gone.safetensors", 3):
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"x": part}}))
        with pytest.raises(ValueError, match=r"index\.json (names the file|is damaged)"):
            weights(tmp_path).apply(TREE)


@pytest.mark.parametrize("change", ["lost", "extra"])
def test_refuses_an_index_that_does_not_fit_its_files(change, tmp_path):
    index = save_shards(tmp_path, ARRAYS) / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    places = places | {"y": "a.safetensors"} if change == "lost" else dict(list(places.items())[1:])
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ValueError, match=r"lacks the array 'y'|but .* does not say so"):
        weights(tmp_path, NAMES).apply(TREE)


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x81\xa1x\x01", b"\xdf\xff\xff\xff\xff"])
def test_refuses_damaged_msgpack(content, tmp_path):
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a tree of arrays|has no arrays"):
        weights(tmp_path / "x.msgpack").apply(TREE)


def test_refuses_other_files_and_folders(tmp_path):
    for name in ("model.pth", "model.pt", "pytorch_model.bin"):
        with pytest.raises(ValueError, match=rf"{name} is a pickle.*save_file.*\.safetensors"):
            weights(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"File .*x\.safetensors does not exist"):
        weights(tmp_path / "x.safetensors").apply(TREE)
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"must end in one of \.safetensors"):
        weights(tmp_path / "x.txt").apply(TREE)
    with pytest.raises(ValueError, match="holds no weights"):
        weights(tmp_path).apply(TREE)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(ValueError, match="is a pickle"):
        weights(tmp_path).apply(TREE)
    with pytest.raises(ValueError, match="has no seeds"):
        weights(tmp_path, seed=3).apply(TREE)


def test_refuses_wrong_rules():
    for rule, expected in (
        (Rename("x", "y", "transpose"), "unknown transform"),
        (Rename("x", "y/{layer}"), "gap in its path"),
        (Rename("x", "y/*"), "gap in its path"),
        (Rename("{a}.{b}", "y"), "only one can be stacked"),
        (Rename("{a}.{a}", "y"), "same gap twice"),
    ):
        with pytest.raises(ValueError, match=expected):
            weights("x.npz", (rule,))
    with pytest.raises(ValueError, match="give a tuple"):
        weights("x.npz", allow="head*")


def test_positions_are_resized_on_request_only(tmp_path):
    """On a grid that is three times as fine, every third cell has its center at an old cell's."""
    table = RNG.normal(size=(1, 1 + 16, 2)).astype(np.float32)
    table[..., 1] = 5
    save_file({"p": table}, tmp_path / "x.safetensors")
    tree = {"p": np.zeros((1, 1 + 144, 2), np.float32)}
    with pytest.raises(ValueError, match=r"p is \(1, 17, 2\), the parameter \(1, 145, 2\)"):
        weights(tmp_path / "x.safetensors").apply(tree)
    loaded = weights(tmp_path / "x.safetensors", interpolate={"p": "2d"}).apply(tree)["p"]
    np.testing.assert_array_equal(loaded[:, 0], table[:, 0])
    grid = loaded[0, 1:].reshape(12, 12, 2)
    np.testing.assert_allclose(grid[1::3, 1::3], table[0, 1:].reshape(4, 4, 2), rtol=1e-6)
    np.testing.assert_allclose(grid[..., 1], 5, rtol=1e-6)
    with pytest.raises(ValueError, match="not square grids"):
        weights(tmp_path / "x.safetensors", interpolate={"p": "2d"}).apply(
            {"p": np.zeros((1, 60, 2), np.float32)}
        )


def test_digest_follows_content(tmp_path):
    path = save_named("safetensors", tmp_path, ARRAYS)
    digest, folder = weights(path).compute_digest(), weights(tmp_path).compute_digest()
    save_named("safetensors", tmp_path, ARRAYS | {"net.fc.bias": ARRAYS["net.fc.bias"] + 1})
    assert weights(path).compute_digest() != digest
    assert weights(tmp_path).compute_digest() != folder
