"""What `make_eval_step` returns becomes metrics by each head's `summary`, as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from mmjax import heads
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.fusion import Concat
from mmjax.heads import (
    Classification,
    CosineClassification,
    Depth,
    EnergyWeighted,
    Evidential,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SequenceLabeling,
)
from mmjax.model import Model
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.types import Batch

N, STEPS, SIDES = 24, 5, (4, 6)
RNG = np.random.default_rng(0)


def classification_metrics(y, p):
    guess = p.argmax(-1)
    return {
        "accuracy": sk.accuracy_score(y, guess),
        "macro_f1": sk.f1_score(y, guess, average="macro", zero_division=0),
    }


def multilabel_metrics(y, p):
    return {
        f"{average}_f1": sk.f1_score(y, p > 0, average=average, zero_division=0)
        for average in ("macro", "micro")
    }


def regression_metrics(y, p):
    return {
        "mae": sk.mean_absolute_error(y, p),
        "rmse": sk.root_mean_squared_error(y, p),
        "r2": sk.r2_score(y, p),
    }


def ordinal_metrics(y, p):
    guess = (p > 0).sum(-1)
    return {
        "accuracy": sk.accuracy_score(y, guess),
        "mae": sk.mean_absolute_error(y, guess),
        "kappa": sk.cohen_kappa_score(y, guess, weights="quadratic"),
    }


def sequence_metrics(y, p):
    return classification_metrics(y[y >= 0], p[y >= 0])


def segmentation_metrics(y, p):
    guess = p.argmax(-1)[y >= 0]
    return {
        "pixel_accuracy": sk.accuracy_score(y[y >= 0], guess),
        "mean_iou": sk.jaccard_score(y[y >= 0], guess, average="macro", zero_division=0),
    }


def depth_metrics(y, p):
    error = np.abs(p - y)[y > 0]
    return {
        "absolute_error": error.mean(),
        "relative_error": (error / y[y > 0]).mean(),
        "rmse": np.sqrt((error**2).mean()),
    }


# Head, targets, metrics of (targets, predictions) in float64.
TABLE = {
    "Classification": (Classification(4), RNG.integers(0, 4, N), classification_metrics),
    "CosineClassification": (
        CosineClassification(4),
        RNG.integers(0, 4, N),
        classification_metrics,
    ),
    "Evidential": (Evidential(4), RNG.integers(0, 4, N), classification_metrics),
    "EnergyWeighted": (EnergyWeighted(4), RNG.integers(0, 4, N), classification_metrics),
    "MultiLabel": (MultiLabel(4), RNG.integers(0, 2, (N, 4)), multilabel_metrics),
    "Regression": (
        Regression(mean=3.0, scale=2.0),
        RNG.normal(3, 2, N).astype(np.float32),
        regression_metrics,
    ),
    "Ordinal": (Ordinal(4), RNG.integers(0, 4, N), ordinal_metrics),
    "SequenceLabeling": (
        SequenceLabeling(4, tokens="x"),
        RNG.integers(-1, 4, (N, STEPS)),
        sequence_metrics,
    ),
    "Segmentation": (
        Segmentation(4, SIDES, decoder=(3,)),
        RNG.integers(-1, 4, (N, *SIDES)),
        segmentation_metrics,
    ),
    "Depth": (
        Depth(SIDES, decoder=(3,), mean=2.0, scale=0.5),
        np.maximum(RNG.normal(2, 2, (N, *SIDES)), 0).astype(np.float32),
        depth_metrics,
    ),
}


def evaluate_one_batch(head, targets):
    """(statistics of the evaluation step, predictions of labeled examples, their targets)."""
    tokens = head.features == "tokens"
    encoder = RecurrentEncoder(width=4, output="all") if tokens else MLPEncoder((8,))
    model = Model({"x": encoder}, Concat(), {"z": head})
    labeled = np.arange(N) % 4 > 0
    batch = Batch(
        {"x": RNG.normal(size=(N, STEPS, 3) if tokens else (N, 3)).astype(np.float32)},
        {"x": np.ones(N, bool)},
        {"x": np.full(N, STEPS, np.int32)} if tokens else {},
        {"z": targets},
        {"z": labeled},
    )

    @jax.jit
    def evaluate(batch):
        variables = model.init(jax.random.key(0), batch, method="call_all_parts")
        return make_eval_step(model)(variables, batch), model.apply(
            variables, batch.inputs, batch.present, batch.lengths, train=False
        )

    statistics, predictions = (of_tasks["z"] for of_tasks in evaluate(batch))
    predictions = np.asarray(predictions, np.float64)[labeled]
    return statistics, predictions, np.asarray(targets, np.float64)[labeled]


def test_every_head_has_a_line():
    assert set(TABLE) == set(heads.__all__) - {"Better", "EffectiveNumber", "Loss"}


@pytest.mark.parametrize("name", TABLE)
def test_the_statistics_of_the_evaluation_step_become_metrics(name):
    head, targets, expected = TABLE[name]
    statistics, predictions, targets = evaluate_one_batch(head, targets)
    assert statistics["examples"] == len(targets) < N
    losses = jax.jit(jax.vmap(head.example_loss))(
        jnp.asarray(predictions, jnp.float32), jnp.asarray(targets.astype(TABLE[name][1].dtype))
    )
    np.testing.assert_allclose(statistics["loss"], np.asarray(losses).sum(), rtol=1e-4)
    found = head.summary(statistics)
    assert found.keys() == head.metrics.keys()
    assert found == pytest.approx(expected(targets, predictions), rel=1e-4)
