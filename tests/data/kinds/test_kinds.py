"""What every kind of column promises, in one table; a new kind fails until it has a row."""

import typing

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mmjax import data
from mmjax.data import kinds
from mmjax.data.dataset import Modality, Task
from mmjax.data.kinds import (
    Audio,
    Boolean,
    Category,
    DateTime,
    DepthMap,
    Image,
    ImageBag,
    Label,
    Labels,
    LabelSet,
    Mask,
    Numbers,
    PointCloud,
    Shares,
    Spans,
    Text,
    TokenLabels,
    Value,
)
from mmjax.data.kinds.category import CategoryModality
from mmjax.data.kinds.media.image_bag import ImageBagModality
from mmjax.data.kinds.media.point_cloud import PointCloudModality
from mmjax.data.kinds.protocols import RowScale

# The kind, cells that it is inferred from (None: never), an example, and the example's modality.
INPUTS = [
    (PointCloud("c"), [[[1.0, 2.0]], [[3.0, 4.0]]], (5, 3), PointCloudModality((5, 3), True)),
    (Numbers("c"), ["1e3", 2, [3.0], "[1, 2]"], (4,), Modality((4,))),
    (Boolean("c"), ["true", "False"], (1,), Modality((1,))),
    (DateTime("c"), ["2024-05-01", "2024-05-01 10:00"], (7,), Modality((7,))),
    (Image("c"), ["A.JPG", "b.png", "c.tif"], (4, 5, 3), Modality((4, 5, 3))),
    (ImageBag("c"), [["a.png", "b.webp"], []], (2, 4, 5, 3), ImageBagModality((2, 4, 5, 3), True)),
    (Category("c"), None, (2,), CategoryModality((2,), False, ("c: missing", "c: unknown"))),
    (Audio("c"), ["a.wav", "b.WAV"], (9, 4), Modality((9, 4), True)),
    (Text("c"), ["12 ab", "a.wav"], "hello", Modality((5,), True)),
]
TARGETS = [
    (Value("c"), [0.5, 1], Task("regression")),
    (Labels(("c", "d")), None, Task("multilabel", ("c", "d"))),
    (LabelSet("c"), None, Task("multilabel")),
    (Shares(("c", "d")), None, Task("classification", ("c", "d"), shape=(2,))),
    (TokenLabels("c"), None, Task("sequence")),
    (Spans(("c", "d")), None, Task("sequence")),
    (Mask("c", ("x", "y")), None, Task("segmentation", ("x", "y"))),
    (DepthMap("c", unit="m"), None, Task("depth", unit="m")),
    (Label("c", ("x", "y")), [1, "x"], Task("classification", ("x", "y"))),
]
DRAWN_AS = {Boolean: Numbers, DateTime: Numbers}


def test_every_kind_has_a_row_and_a_public_name():
    inputs, targets = ({type(row[0]) for row in table} for table in (INPUTS, TARGETS))
    assert inputs == set(typing.get_args(kinds.Input)) == set(kinds.INPUT_KINDS)
    assert inputs == {*kinds.PLOTTED_KINDS, *DRAWN_AS} and targets == set(
        typing.get_args(kinds.Target)
    )
    for kind in inputs | targets:
        assert getattr(data, kind.__name__) is kind and kind.__name__ in data.__all__


@pytest.mark.parametrize(("spec", "cells", "shape", "modality"), INPUTS)
def test_an_input_is_inferred_declared_and_drawn(spec, cells, shape, modality):
    if cells is None:
        assert not spec.matches_cells(["a", 1])
    else:
        assert next(kind("c") for kind in kinds.INPUT_KINDS if kind.matches_cells(cells)) == spec
    declared = spec.declare_modality({"tokens": [{}]})
    assert type(declared) is type(modality) and declared.sequence == modality.sequence
    if isinstance(shape, str):
        x = np.frombuffer(shape.encode(), np.uint8).astype(np.int32) + 1
    else:
        x = np.random.default_rng(0).random(shape, np.float32)
    if isinstance(spec, Category):
        x = np.array([1, 0], np.int32)
    chosen = next(kind for kind in kinds.PLOTTED_KINDS if kind.name_axes(x, modality) is not None)
    assert chosen is DRAWN_AS.get(type(spec), type(spec))
    figure, axis = plt.subplots()
    spec.draw(axis, x, RowScale(float(x.min()), float(x.max()), len(x), modality.vocabulary))
    assert axis.has_data() or axis.texts
    plt.close(figure)


@pytest.mark.parametrize(("spec", "cells", "task"), TARGETS)
def test_a_target_is_inferred_and_declared(spec, cells, task):
    assert spec.declare_task() == task
    if cells is not None:
        kind = next(kind for kind in kinds.TARGET_KINDS if kind.matches_cells(cells))
        assert kind is type(spec)
