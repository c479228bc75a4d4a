"""Multi-digit pairs from small idx files of random images, taken apart again pixel by pixel."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from PIL import Image

from mmjax.data.builtin import multi_digits_builder as builders
from mmjax.data.builtin.image_pairs import (
    draw_partners,
    overlap_images,
    resize_bilinear,
    resize_nearest,
)
from mmjax.data.builtin.multi_digits import Pairing, fashion_mnist_pairs, multi_fashion, multi_mnist
from mmjax.data.builtin.originals.download import OriginalFiles
from mmjax.data.checks.validate import validate_split

IMAGES = {"train": 120, "test": 40}
SIZES = {"train": 90, "validation": 25, "test": 30}
NAMES = {"train": "train", "test": "t10k"}


def write_idx(path, values):
    """Writes uint8 values in the idx format."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


def write_originals(folder, seed):
    """Makes files like the published ones; no two images are alike anywhere."""
    folder.mkdir(parents=True)
    rng, made = np.random.default_rng(seed), {}
    for part, size in IMAGES.items():
        made[part] = (
            rng.integers(0, 256, (size, 28, 28), dtype=np.uint8),
            rng.integers(0, 10, size, dtype=np.uint8),
        )
        for kind, values in zip(("images-idx3", "labels-idx1"), made[part], strict=True):
            write_idx(folder / f"{NAMES[part]}-{kind}-ubyte.gz", values)
    return made


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The folder of the original files, and what is in them."""
    folder = tmp_path_factory.mktemp("originals")
    names = ("mnist", "fashion-mnist")
    return folder, {name: write_originals(folder / name, i) for i, name in enumerate(names)}


def make(function, originals, data_dir, **more):
    return function(**SIZES, manual_dir=str(originals[0]), data_dir=str(data_dir), **more)


def composed(first, second, offset=8):
    """The protocol for one pair, in plain loops, resized by Pillow."""
    canvas = np.zeros((36, 36), np.uint8)
    for row, column in np.ndindex(28, 28):
        canvas[row, column] = first[row, column]
    for row, column in np.ndindex(28, 28):
        old = canvas[row + offset, column + offset]
        canvas[row + offset, column + offset] = max(old, second[row, column])
    return np.array(Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST))


SOURCE = [int((i + 0.5) * 36 / 28) for i in range(28)]  # the canvas's pixel that is seen at i


def parts_of(image, firsts, seconds):
    """The places of the two originals, told by the corners where only one of them is seen."""
    near = [i for i, s in enumerate(SOURCE) if s < 8]
    far = [i for i, s in enumerate(SOURCE) if s >= 28]
    corner = firsts[:, [SOURCE[i] for i in near]][:, :, [SOURCE[i] for i in near]]
    (first,) = np.flatnonzero((corner == image[np.ix_(near, near)]).all(axis=(1, 2)))
    inner = [SOURCE[i] - 8 for i in far]
    (second,) = np.flatnonzero(
        (seconds[:, inner][:, :, inner] == image[np.ix_(far, far)]).all(axis=(1, 2))
    )
    return int(first), int(second)


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (multi_mnist, "mnist", "mnist"),
        (multi_fashion, "fashion-mnist", "fashion-mnist"),
        (fashion_mnist_pairs, "fashion-mnist", "mnist"),
    ],
)
def test_every_pair_is_made_by_the_protocol(function, first, second, originals, tmp_path):
    data = make(function, originals, tmp_path)
    used = {}
    assert data.name == function.__name__
    assert data.tasks["left"].classes == builders.CLASS_NAMES[first]
    assert data.tasks["right"].classes == builders.CLASS_NAMES[second]
    for split, source in data.splits.items():
        part = "test" if split == "test" else "train"
        batch = source.batch
        validate_split(data.name, split, batch, data.modalities, data.tasks)
        assert len(source) == SIZES[split] and batch.inputs["image"].dtype == np.uint8
        (ones, one_classes), (twos, two_classes) = (originals[1][n][part] for n in (first, second))
        found = [parts_of(image[:, :, 0], ones, twos) for image in batch.inputs["image"]]
        for image, (i, j) in zip(batch.inputs["image"], found, strict=True):
            np.testing.assert_array_equal(image[:, :, 0], composed(ones[i], twos[j]))
        firsts, seconds = map(list, zip(*found, strict=True))
        np.testing.assert_array_equal(batch.targets["left"], one_classes[firsts])
        np.testing.assert_array_equal(batch.targets["right"], two_classes[seconds])
        assert len(set(firsts)) == SIZES[split], "each image is the first of one pair"
        if first == second:
            assert (batch.targets["left"] != batch.targets["right"]).all()
            assert set(seconds) <= set(firsts), "partners are of the same split"
        else:
            assert (batch.targets["left"] == batch.targets["right"]).any()
        used[split] = {(first, i) for i in firsts} | {(second, j) for j in seconds}
    assert not used["train"] & used["validation"]


def files_of(folder):
    found = sorted(folder.rglob("*.array_record*"))
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in found}


def test_the_seed_decides_and_the_files_are_the_same(originals, tmp_path):
    first, again = (make(multi_mnist, originals, tmp_path / f) for f in "ab")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") != {}
    other = make(multi_mnist, originals, tmp_path / "a", seed=1)
    for split in SIZES:
        one, two, three = (d.splits[split].batch for d in (first, again, other))
        np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])
        assert not np.array_equal(one.targets["left"], three.targets["left"])


def test_what_is_prepared_needs_no_originals(originals, tmp_path):
    first = make(multi_mnist, originals, tmp_path)
    again = make(multi_mnist, ("nowhere",), tmp_path)
    for split in SIZES:
        one, two = (d.splits[split].batch for d in (first, again))
        np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])


@pytest.mark.parametrize("offset", [0, 6, 8])
def test_overlap_at_any_offset(offset):
    rng = np.random.default_rng(offset)
    first, second = rng.integers(0, 256, (2, 5, 28, 28), dtype=np.uint8)
    made = resize_nearest(overlap_images(first, second, offset, 36), 28)
    for i in range(5):
        np.testing.assert_array_equal(made[i], composed(first[i], second[i], offset))


def test_an_offset_of_six_leaves_the_last_pixels_empty():
    """As in the pairs of Sener and Koltun."""
    white = np.full((1, 28, 28), 255, np.uint8)
    canvas = overlap_images(white, white, 6, 36)[0]
    assert (canvas[34:] == 0).all() and (canvas[:, 34:] == 0).all()
    assert (canvas[:28, :28] == 255).all() and (canvas[28:34, :6] == 0).all()


def test_bilinear_keeps_a_ramp_and_the_mean():
    ramp = np.broadcast_to(np.arange(36, dtype=np.uint8) * 7, (1, 36, 36))
    centres = (np.arange(28) + 0.5) * 36 / 28 - 0.5
    np.testing.assert_allclose(resize_bilinear(ramp, 28)[0, 5, 1:-1], 7 * centres[1:-1], atol=1)
    noise = np.random.default_rng(0).integers(0, 256, (1, 36, 36), dtype=np.uint8)
    assert abs(resize_bilinear(noise, 28).mean() - noise.mean()) < 2


def test_the_filter_is_used(originals, tmp_path):
    sizes = {"train": 10, "validation": 5, "test": 5}
    one, two = (
        multi_mnist(
            **sizes, pairing=pairing, manual_dir=str(originals[0]), data_dir=str(tmp_path)
        ).splits["train"].batch
        for pairing in (Pairing(), Pairing(resize="bilinear", offset=6))
    )  # fmt: skip
    np.testing.assert_array_equal(one.targets["right"], two.targets["right"])
    assert one.inputs["image"].std() > two.inputs["image"].std()  # of noise, by averaging


def test_partners_are_drawn_evenly_from_all_other_classes():
    classes, others = np.full(30_000, 2), np.arange(50) % 5
    counts = np.bincount(
        draw_partners(classes, others, np.random.default_rng(0), same_class=False), minlength=50
    )
    assert (counts[others == 2] == 0).all()
    expected = 30_000 / 40
    assert (np.abs(counts[others != 2] - expected) < 5 * np.sqrt(expected)).all()
    anyone = draw_partners(classes, others, np.random.default_rng(0), same_class=True)
    assert abs((others[anyone] == 2).mean() - 0.2) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 100}, "train . validation is 125; mnist has 120 images for train"),
        ({"test": 41}, "test is 41; mnist has 40 images for test"),
        ({"validation": 0}, "validation is 0; a split needs at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_wrong_sizes_are_refused(arguments, message, originals, tmp_path):
    folders = {"manual_dir": str(originals[0]), "data_dir": str(tmp_path)}
    with pytest.raises(ValueError, match=message):
        multi_mnist(**{**SIZES, **arguments}, **folders)
    assert not list(tmp_path.rglob("*.array_record*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"offset": 9}, "offset is 9; it must be 0 to 8"), ({"resize": "cubic"}, "'cubic'")],
)
def test_wrong_pairings_are_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Pairing(**arguments)


def test_one_class_has_no_partners():
    with pytest.raises(ValueError, match="class 3 has no partner of another class among 4"):
        draw_partners(np.full(4, 3), np.full(4, 3), np.random.default_rng(0), same_class=False)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("images-idx3", np.zeros((40, 27, 28), np.uint8), "shape is 40 x 27 x 28; it must be any"),
        ("labels-idx1", np.zeros(39, np.uint8), "labels.*shape is 39; it must be 40"),
        ("labels-idx1", np.arange(40, dtype=np.uint8), "label 10 is 10; it must be 0 to 9"),
    ],
)
def test_wrong_originals_are_named(kind, values, message, tmp_path):
    write_originals(tmp_path / "mnist", 0)
    write_idx(tmp_path / "mnist" / f"t10k-{kind}-ubyte.gz", values)
    with pytest.raises(ValueError, match=f"t10k-.*{message}"):
        builders.read_original_images("mnist", "test", OriginalFiles(tmp_path, tmp_path))


def test_a_missing_original_is_named(originals, tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        multi_mnist(manual_dir=str(tmp_path), data_dir=str(tmp_path))
