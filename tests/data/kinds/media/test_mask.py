"""Segmentation masks and depth maps, from files and from arrays."""

import numpy as np
import PIL.Image
import pytest

from mmjax.data import DepthMap, Mask, from_arrays
from mmjax.data.dataset import Task

RNG = np.random.default_rng(0)
MASKS = RNG.integers(0, 3, (4, 6, 8)).astype(np.uint8)
MASKS[:, 0, 0] = 255
DEPTHS = RNG.integers(0, 60_000, (4, 6, 8)).astype(np.uint16)
DEPTHS[:, 0, 0] = 0
CLASSES = ("sky", "road", "car")


def save_all(folder, arrays, suffix="png"):
    for i, array in enumerate(arrays):
        PIL.Image.fromarray(array).save(folder / f"{i}.{suffix}")
    return [f"{i}.{suffix}" for i in range(len(arrays))]


def test_gray_levels_and_palettes_are_classes(load, tmp_path):
    names = save_all(tmp_path, MASKS)
    data = load({"m": names}, {}, {"y": Mask("m", CLASSES)})
    assert data.tasks["y"] == Task("segmentation", CLASSES, shape=(6, 8))
    expected = np.where(MASKS == 255, -1, MASKS.astype(int))
    got = np.concatenate([data.splits[s].batch.targets["y"] for s in ("train", "test")])
    np.testing.assert_array_equal(got, expected)
    picture = PIL.Image.new("P", (8, 6))
    picture.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    picture.putdata(MASKS[0].ravel().tolist())
    picture.save(tmp_path / "p.png")
    np.testing.assert_array_equal(Mask("m", CLASSES).read_cells(["p.png"], tmp_path), expected[0])


def test_masks_are_resized_without_new_classes(load, tmp_path):
    names = save_all(tmp_path, np.kron(MASKS[:, :, :], np.ones((1, 2, 2), np.uint8)))
    data = load({"m": names}, {}, {"y": Mask("m", CLASSES, size=(6, 8))})
    expected = np.where(MASKS == 255, -1, MASKS.astype(int))
    np.testing.assert_array_equal(data.splits["train"].batch.targets["y"], expected[:2])


def test_masks_that_do_not_fit_are_refused(load, tmp_path):
    names = save_all(tmp_path, MASKS)
    for spec, message in (
        (Mask("m", CLASSES[:2]), r"line \d, 'y': .*png has the level 2, but 2 classes"),
        (Mask("m", CLASSES, ignore=None), "has the level 255, but 3 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            load({"m": names}, {}, {"y": spec})
    PIL.Image.new("RGB", (8, 6)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1\.png has colors \(RGB\); store the mask as gray"):
        load({"m": names}, {}, {"y": Mask("m", CLASSES)})
    PIL.Image.new("L", (8, 6)).save(tmp_path / "1.png", "JPEG")
    with pytest.raises(ValueError, match=r"1\.png is a JPEG .* may have changed the levels; store"):
        load({"m": names}, {}, {"y": Mask("m", CLASSES)})
    PIL.Image.new("L", (5, 5)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"line 3: target 'y' is of the shape \(5, 5\); it must"):
        load({"m": names}, {}, {"y": Mask("m", CLASSES)})
    (tmp_path / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png does not exist.* skip_unreadable=True"):
        load({"m": names}, {}, {"y": Mask("m", CLASSES)})


def test_depths_of_sixteen_bits_and_npy_files(load, tmp_path):
    names = save_all(tmp_path, DEPTHS)
    spec = DepthMap("d", scale=0.001, unit="m")
    data = load({"d": names}, {}, {"y": spec})
    assert data.tasks["y"] == Task("depth", unit="m", shape=(6, 8))
    got = np.concatenate([data.splits[s].batch.targets["y"] for s in ("train", "test")])
    np.testing.assert_allclose(got, DEPTHS * 0.001, rtol=1e-6)
    raw = DEPTHS[0].astype(np.float32)
    raw[1, 1] = np.nan
    np.save(tmp_path / "d.npy", raw)
    depth = spec.read_cells(["d.npy"], tmp_path)
    assert depth[1, 1] == 0 == depth[0, 0]
    np.testing.assert_allclose(depth[2:], DEPTHS[0, 2:] * 0.001, rtol=1e-6)
    half = spec._replace(size=(3, 4)).read_cells(["d.npy"], tmp_path)
    np.testing.assert_array_equal(half, depth[1::2, 1::2])
    np.save(tmp_path / "bad.npy", np.array([[-1.0]]))
    with pytest.raises(ValueError, match=r"bad\.npy has the depth -0.001.* positive and finite"):
        spec.read_cells(["bad.npy"], tmp_path)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy is not a whole \.npy file"):
        spec.read_cells(["objects.npy"], tmp_path)


def test_arrays_of_masks_and_depths():
    masks = np.where(MASKS == 255, -1, MASKS.astype(int))
    depths = DEPTHS.astype(np.float64)
    depths[depths == 0] = np.nan
    arrays = {"train": {"x": np.arange(4.0), "m": masks, "d": depths}}
    tasks = {"m": Task("segmentation", CLASSES), "d": Task("depth", unit="mm")}
    data = from_arrays(arrays, ["x"], ["m", "d"], tasks=tasks)
    batch = data.splits["train"].batch
    np.testing.assert_array_equal(batch.targets["m"], masks)
    np.testing.assert_array_equal(batch.targets["d"], DEPTHS)
    assert batch.targets["m"].dtype == np.int32 and batch.targets["d"].dtype == np.float32
    assert data.tasks["d"].shape == (6, 8) == data.tasks["m"].shape
    with pytest.raises(ValueError, match=r"row 0 of 'train': target 'm' is 2 somewhere; it must"):
        from_arrays(arrays, ["x"], ["m"], tasks={"m": Task("segmentation", CLASSES[:2])})
