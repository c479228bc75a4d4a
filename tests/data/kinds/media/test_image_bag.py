"""Bags of images: any number per example, of one size."""

import numpy as np
import PIL.Image
import pytest

from mmjax.data import ImageBag


@pytest.fixture
def pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3)).astype(np.uint8)
    for i, one in enumerate(pixels):
        PIL.Image.fromarray(one).save(tmp_path / f"{i}.png")
    return pixels


def test_bags_are_padded_and_have_lengths(load, pictures):
    cells = ["0.png;1.png;2.png", "3.png", "", "4.png; 0.png"]
    data = load({"views": cells}, {"views": ImageBag("views")})
    assert data.modalities["views"].describe() == "up to 3 images of 4 x 6 x 3"
    train, test = (data.splits[s].batch for s in ("train", "test"))
    assert train.lengths["views"].tolist() == [3, 1] and test.lengths["views"].tolist() == [0, 2]
    np.testing.assert_array_equal(train.inputs["views"][0], pictures[:3])
    np.testing.assert_array_equal(train.inputs["views"][1, 0], pictures[3])
    np.testing.assert_array_equal(test.inputs["views"][1, :2], pictures[[4, 0]])
    assert not test.present["views"][0] and test.inputs["views"].dtype == np.uint8


def test_options_and_sizes(load, pictures, tmp_path):
    PIL.Image.fromarray(pictures[0, :3]).save(tmp_path / "low.png")
    cells = ["0.png,low.png", "1.png", "2.png,3.png,4.png", "0.png"]
    with pytest.raises(ValueError, match=r"line 2, 'v': low\.png has shape .* size=\(height"):
        load({"v": cells}, {"v": ImageBag("v", separator=",")})
    spec = ImageBag("v", size=(2, 2), channels=1, separator=",", longest=2)
    assert load({"v": cells}, {"v": spec}).modalities["v"].shape == (2, 2, 2, 1)


@pytest.mark.parametrize("in_memory", [True, False])
def test_lists_of_parquet_are_inferred(pictures, tmp_path, in_memory):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from mmjax.data import from_table

    views = [[f"{j}.png" for j in range(1 + i % 5)] for i in range(20)]
    table = {"v": views, "x": list(range(20)), "y": [["a", "b"][i % 2] for i in range(20)]}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    inputs, shares = {"v": "v", "x": "x"}, {"train": 0.5, "test": 0.5}
    data = from_table(tmp_path / "t.parquet", inputs, {"y": "y"}, split=shares, in_memory=in_memory)
    assert data.modalities["v"].shape == (5, 4, 6, 3)
    lengths = [data.splits[s].take(np.arange(10)).lengths["v"] for s in ("train", "test")]
    assert np.concatenate(lengths).sum() == sum(map(len, views))
