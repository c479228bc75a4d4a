"""Point clouds from arrays to a trained model, through tables, descriptions and plots."""

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from PIL import Image

import mmjax
from mmjax.data import PointCloud, from_arrays, from_table
from mmjax.data.describe.plot_examples import draw_examples
from mmjax.data.describe.tables import describe_dataset
from mmjax.data.kinds.media.point_cloud import PointCloudModality
from mmjax.data.kinds.protocols import RowScale
from mmjax.encoders import DeepSetsEncoder, MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model

SIZES = {"train": 80, "validation": 20, "test": 40}


def make_split(seed, examples):
    """Rings and disks of 4 to 12 points in the plane, every fifth of them missing, and noise."""
    rng = np.random.default_rng(seed)
    shapes = rng.integers(0, 2, examples)
    scans = []
    for i, shape in enumerate(shapes):
        angles = rng.uniform(0, 2 * np.pi, rng.integers(4, 13))
        radii = np.ones(len(angles)) if shape else rng.uniform(0, 0.7, len(angles))
        points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
        scans.append(None if i % 5 == 4 else points)
    noise = rng.normal(size=(examples, 3))
    return {"scan": scans, "noise": noise, "shape": np.array(["disk", "ring"])[shapes]}


def make_splits():
    return {split: make_split(seed, n) for seed, (split, n) in enumerate(SIZES.items())}


def make(splits=None, **options):
    return from_arrays(splits or make_splits(), [PointCloud("scan"), "noise"], ["shape"], **options)


def test_arrays_become_padded_points_and_missing_ones_are_marked(capsys):
    data = make(name="clouds", standardize=())
    assert data.modalities["scan"] == PointCloudModality((12, 2), True)
    assert isinstance(data.modalities["scan"], PointCloudModality)
    batch, scans = data.splits["train"].batch, make_splits()["train"]["scan"]
    for row, scan in enumerate(scans):
        length = 0 if scan is None else len(scan)
        assert batch.present["scan"][row] == (scan is not None)
        assert batch.lengths["scan"][row] == length
        np.testing.assert_allclose(batch.inputs["scan"][row, length:], 0)
        if length:
            np.testing.assert_allclose(batch.inputs["scan"][row, :length], scan, rtol=1e-6)
    assert "scan   up to 12 points in 2 dimensions; present in 80.0% of train" in (
        capsys.readouterr().err
    )


def test_clouds_of_one_size_and_padded_ones_are_points_too():
    whole = {
        split: part | {"scan": np.random.default_rng(0).normal(size=(len(part["shape"]), 7, 3))}
        for split, part in make_splits().items()
    }
    data = make(whole)
    assert data.modalities["scan"] == PointCloudModality((7, 3), True)
    assert (data.splits["test"].batch.lengths["scan"] == 7).all()
    counts = {s: part | {"n": np.full(len(part["shape"]), 3)} for s, part in whole.items()}
    assert (make(counts, lengths={"scan": "n"}).splits["test"].batch.lengths["scan"] == 3).all()


def test_arrays_that_are_no_points_are_refused():
    flat = {s: part | {"scan": np.zeros(len(part["shape"]))} for s, part in make_splits().items()}
    with pytest.raises(ValueError, match=r"'scan' has the shape \(1,\); a `PointCloud` needs"):
        make(flat)
    with pytest.raises(ValueError, match="inputs names 'scan' twice"):
        from_arrays(make_splits(), [PointCloud("scan"), "scan"], ["shape"])


@pytest.mark.slow
def test_a_model_learns_the_shape_of_a_cloud(tmp_path):
    experiment = mmjax.Experiment(
        data=make(),
        model=Model(
            encoders={"scan": DeepSetsEncoder((32,), (16,)), "noise": MLPEncoder((4,))},
            fusion=Concat(),
            heads={"shape": Classification(2)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=15,
        eval_every=15,
        batch_size=40,
    )
    fitted = mmjax.fit(experiment, tmp_path, devices=jax.devices()[:1])
    # A fifth of the clouds is missing, of which half can be guessed.
    assert fitted.test[0]["shape/accuracy"] > 0.75


def test_clouds_are_described_and_drawn(tmp_path):
    data = make()
    tables = {table.title: table.rows for table in describe_dataset(data)}
    assert tables["Modalities"][1][:3] == ["scan", "up to 12 points in 2 dimensions", "float32"]
    assert tables["Modalities"][1][4] == "16 (20.0%)"
    draw_examples(data, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 400


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_the_first_two_coordinates_are_places(dimensions):
    points = np.random.default_rng(0).normal(size=(5, dimensions))
    figure, axis = plt.subplots()
    PointCloud.draw(axis, points, RowScale(-3.0, 3.0, 5))
    drawn = axis.collections[0].get_offsets()
    plt.close(figure)
    np.testing.assert_array_equal(drawn[:, 0], points[:, 0])
    np.testing.assert_array_equal(drawn[:, 1], points[:, 1] if dimensions > 1 else np.zeros(5))


def write_table(path, clouds):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    count = len(clouds)
    columns = {"scan": clouds, "noise": np.arange(count) / 3, "shape": ["disk", "ring"] * count}
    parquet.write_table(pyarrow.table({k: list(v)[:count] for k, v in columns.items()}), path)


@pytest.mark.parametrize("in_memory", [True, False])
def test_nested_lists_of_a_table_are_points(tmp_path, in_memory):
    rng = np.random.default_rng(0)
    clouds = [rng.normal(size=(3 + i % 4, 2)).tolist() for i in range(100)]
    clouds[5] = None
    write_table(tmp_path / "t.parquet", clouds)
    inputs, options = {"scan": "scan", "noise": "noise"}, {"in_memory": in_memory}
    data = from_table(tmp_path / "t.parquet", inputs, {"shape": "shape"}, **options)
    assert isinstance(data.modalities["scan"], PointCloudModality)
    assert data.modalities["scan"].shape == (6, 2)
    sources = data.splits.values()
    assert sum(int(s.take(np.arange(len(s))).present["scan"].sum()) for s in sources) == 99


def test_bad_cells_of_a_table_are_named(tmp_path):
    for points, message in (
        ([[0.0, 1.0], [2.0]], "row 7, 'scan': its points have different numbers of coordinates"),
        ([[0.0, float("nan")]], "row 7, 'scan': nan is"),
    ):
        clouds = [[[0.0, 1.0]] for _ in range(20)]
        clouds[7] = points
        write_table(tmp_path / "t.parquet", clouds)
        with pytest.raises(ValueError, match=message):
            from_table(tmp_path / "t.parquet", {"scan": "scan"}, {"shape": "shape"})
