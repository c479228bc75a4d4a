"""Outputs of heads become classes, numbers and spans; ensembles average probabilities."""

from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from mmjax.data.dataset import Task
from mmjax.runs.prediction.place_predictions import Span, find_spans
from mmjax.runs.prediction.prediction_table import PREDICTION_OF_KIND, Predictions
from mmjax.runs.prediction.predictions import Outputs

RNG = np.random.default_rng(0)
VALID = np.array([True, True, False, True])
LOGITS = RNG.normal(scale=3, size=(5, 4, 3)).astype(np.float32)  # of 5 models
CLASSES = ("ash", "oak", "elm")


def interpret(kind, values, lengths=None, **fields):
    task = Task(kind, CLASSES, **fields)
    return PREDICTION_OF_KIND[kind].interpret(task, Outputs(values, VALID, lengths))


def average(kind, values):
    return np.asarray(PREDICTION_OF_KIND[kind].average(jnp.asarray(values)))


def test_every_kind_of_task_has_a_prediction():
    assert set(PREDICTION_OF_KIND) == set(get_args(Task.__annotations__["kind"]))


def test_classes_have_the_mean_probabilities_of_an_ensemble():
    prediction = interpret("classification", average("classification", LOGITS))
    expected = softmax(LOGITS.astype(np.float64), axis=-1).mean(axis=0)
    np.testing.assert_allclose(prediction.probabilities[VALID], expected[VALID], rtol=2e-6)
    assert np.isnan(prediction.probabilities[2]).all()
    assert prediction.indices.tolist() == [*expected.argmax(1)[:2], -1, expected.argmax(1)[3]]
    assert prediction.names[2] is None


def test_ordered_classes_have_the_mean_probabilities_and_the_median():
    falling = -np.sort(-LOGITS[..., :2], axis=-1)  # P(y > k) falls with k
    prediction = interpret("ordinal", average("ordinal", falling))
    above = expit(falling.astype(np.float64)).mean(axis=0)
    expected = np.stack([1 - above[:, 0], above[:, 0] - above[:, 1], above[:, 1]], axis=1)
    np.testing.assert_allclose(prediction.probabilities[VALID], expected[VALID], atol=1e-6)
    median = (np.cumsum(expected, axis=1) < 0.5).sum(axis=1)
    assert prediction.indices[VALID].tolist() == median[VALID].tolist()


def test_subsets_have_the_classes_above_half():
    prediction = interpret("multilabel", average("multilabel", LOGITS))
    expected = expit(LOGITS.astype(np.float64)).mean(axis=0)
    np.testing.assert_allclose(prediction.probabilities[VALID], expected[VALID], rtol=2e-6)
    chosen = [c for c, p in zip(CLASSES, expected[0], strict=True) if p > 0.5]
    assert prediction.names[0] == chosen
    assert prediction.names[2] is None


@pytest.mark.parametrize(
    "kind, shape", [("regression", (4,)), ("regression", (4, 2)), ("depth", (4, 2, 3))]
)
def test_numbers_are_means_in_their_unit(kind, shape):
    values = RNG.normal(size=(5, *shape)).astype(np.float32)
    prediction = interpret(kind, average(kind, values), unit="cm")
    np.testing.assert_allclose(
        prediction.values[VALID], values.mean(axis=0)[VALID], rtol=1e-5, atol=1e-6
    )
    assert np.isnan(prediction.values[2]).all() and prediction.unit == "cm"


def test_tags_end_with_their_sequences():
    logits = np.eye(3, dtype=np.float32)[[[0, 0, 1], [2, 1, 1], [0, 1, 2], [1, 1, 1]]]
    prediction = interpret("sequence", logits, lengths=np.array([3, 1, 3, 2]))
    assert prediction.names == [["ash", "ash", "oak"], ["elm"], [], ["oak", "oak"]]
    assert prediction.spans[0] == [Span("ash", 0, 2), Span("oak", 2, 3)]
    assert prediction.spans[2] == []


def test_pixels_have_classes():
    logits = RNG.normal(size=(4, 2, 2, 3)).astype(np.float32)
    prediction = interpret("segmentation", logits)
    np.testing.assert_array_equal(prediction.indices[0], logits[0].argmax(-1))
    assert (prediction.indices[2] == -1).all()


@pytest.mark.parametrize(
    "names, spans",
    [
        ([], []),
        (["O", "O"], []),
        (["I-A", "I-A", "I-B"], [Span("A", 0, 2), Span("B", 2, 3)]),
        (["B-A", "B-A", "O", "I-A"], [Span("A", 0, 1), Span("A", 1, 2), Span("A", 3, 4)]),
        (["B-A", "x"], [Span("B-A", 0, 1), Span("x", 1, 2)]),
    ],
)
def test_spans_follow_their_prefixes(names, spans):
    assert find_spans(names) == spans


def test_a_frame_has_one_group_of_columns_per_task():
    tasks = {
        "tree": interpret("classification", LOGITS[0]),
        "seen": interpret("multilabel", LOGITS[0]),
        "height": interpret("regression", LOGITS[0, :, 0], unit="m"),
    }
    frame = Predictions(tasks, {"id": [7, 8, 9, 10]}).to_frame()
    assert list(frame) == [
        "id",
        "tree/prediction",
        "tree/probability",
        *(f"tree/probability/{c}" for c in CLASSES),
        "seen/prediction",
        *(f"seen/probability/{c}" for c in CLASSES),
        "height/prediction",
    ]
    row = frame.iloc[0]
    assert row["tree/probability"] == row[f"tree/probability/{row['tree/prediction']}"]
    assert frame["tree/prediction"].isna().tolist() == [False, False, True, False]
