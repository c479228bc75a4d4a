"""A spec is stored as JSON and comes back as it was."""

import json

import flax.linen as nn
import numpy as np
import pytest

from mmjax import data, files
from mmjax.data.dataset import Dataset, Modality, Preparation, Task
from mmjax.data.kinds import (
    INPUT_KINDS,
    Audio,
    Boolean,
    Category,
    DateTime,
    Image,
    ImageBag,
    Numbers,
    PointCloud,
    Text,
)
from mmjax.data.kinds.media.point_cloud import PointCloudModality
from mmjax.data.normalize import Scale
from mmjax.data.spec import (
    Spec,
    convert_spec_to_json,
    fill_part,
    make_spec,
    parse_spec,
    read_spec,
    write_spec,
)
from mmjax.heads import Classification

# Every kind of column, with fields that are not the default ones, and what it may have learned.
KINDS = {
    Numbers: (Numbers(("b", "a"), fill="median"), {"fills": [1 / 3, None], "indicators": [0]}),
    Boolean: (Boolean(("b", "a")), {"fills": [0.5, 1.0], "indicators": []}),
    Category: (Category("c", 5), {"tokens": [{"red": 2, "é": 3}], "starts": [0]}),
    DateTime: (DateTime("t", timezone="Asia/Tokyo"), {"start": 1.7e9, "parts": ["linear"]}),
    ImageBag: (ImageBag("views", size=(4, 6), fit="pad"), {"bits": 16}),
    Text: (Text("note", level="word", vocabulary=5), {"words": {"cat": 2, "é": 3}}),
    Image: (Image("photo", size=(4, 6), channels=1), {}),
    Audio: (Audio("speech", mels=20), {"rate": 8000}),
    PointCloud: (PointCloud("scan"), {}),
}


def test_every_kind_of_column_is_tried():
    assert set(INPUT_KINDS) <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: type(kind[0]).__name__)
def test_a_kind_comes_back_with_what_it_learned(kind):
    # A third has no exact decimal form; every digit must survive.
    scale = Scale(np.array([1 / 3, 1e300]), np.array([np.pi, 5e-324]))
    preparation = Preparation(*kind, "float32", scale, "ends")
    modality = kind[0].declare_modality(kind[1])._replace(shape=(4, 2))
    spec = Spec("pets", {"m": modality}, {}, {"m": preparation}, {"separator": ";"})
    again = parse_spec(json.loads(json.dumps(convert_spec_to_json(spec))))
    assert again.modalities == spec.modalities
    assert type(again.modalities["m"]) is type(modality)
    restored = again.preparations["m"]
    assert restored._replace(scale=None) == preparation._replace(scale=None)
    np.testing.assert_array_equal(restored.scale, scale)
    assert again.table_options == {"separator": ";"}


class Standardized(nn.Module):
    """A head that takes its mean and scale from the training labels if it has none."""

    mean: float | None = None
    scale: float | None = None
    hidden: tuple[int, ...] = ()


def test_numbers_that_a_head_took_from_the_labels_come_back():
    trained = {"size": Standardized(mean=1 / 3, scale=2.0), "kind": Classification(3)}
    spec = make_spec(data.interactions(train=64), trained)
    again = parse_spec(json.loads(json.dumps(convert_spec_to_json(spec))))
    head = fill_part(Standardized(scale=4.0, hidden=(5,)), again.heads["size"])
    assert (head.mean, head.scale, head.hidden) == (1 / 3, 4.0, (5,))
    assert fill_part(Classification(3), again.heads["kind"]) == Classification(3)


def test_a_point_cloud_stays_one(tmp_path):
    tasks = {"size": Task("regression", unit="cm"), "tag": Task("sequence", ("a", "b"), shape=(3,))}
    modality = PointCloudModality((5, 2), True)
    dataset = Dataset(
        "scans", {"scan": modality}, tasks, {}, {}, {"scan": Preparation(PointCloud("scan"))}
    )
    write_spec(tmp_path, dataset, {}, {})
    spec = read_spec(tmp_path)
    assert type(spec.modalities["scan"]) is PointCloudModality
    assert spec.tasks == tasks


def test_arrays_without_a_preparation_tell_their_type():
    spec = make_spec(data.interactions(train=64))
    assert {m: p.dtype for m, p in spec.preparations.items()} == {"a": "float32", "b": "float32"}
    assert spec.modalities["a"] == Modality((16,))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"version": 99}, "version 99"),
        (lambda s: {k: v for k, v in s.items() if k != "tasks"}, "lacks 'tasks'"),
        (
            lambda s: (
                s
                | {"preparations": {"m": s["preparations"]["m"] | {"kind": {"type": "os.system"}}}}
            ),
            "os.system",
        ),
        (
            lambda s: s | {"preparations": {"m": s["preparations"]["m"] | {"dtype": "objekt"}}},
            "objekt",
        ),
    ],
)
def test_a_damaged_spec_is_named(tmp_path, change, message):
    spec = Spec("pets", {"m": Modality((2,))}, {}, {"m": Preparation()}, {})
    files.write_json(tmp_path / "spec.json", change(convert_spec_to_json(spec)))
    with pytest.raises(files.DamagedFileError, match=f"spec.json is damaged.*{message}"):
        read_spec(tmp_path)


def test_a_run_without_a_spec_has_none(tmp_path):
    assert read_spec(tmp_path) is None
