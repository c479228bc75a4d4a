"""Weights of examples in the step: a loss is a mean under weights, which repetition stands for."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch
from tests.tolerance import bound_difference
from tests.train.steps.test_train_step import Identity, start

HEADS = {"kind": Classification(3), "size": Regression(mean=0.0, scale=1.0)}
MODEL = Model(encoders={"x": MLPEncoder((3,))}, fusion=Concat(), heads=HEADS)
LINEAR = Model(encoders={"x": Identity()}, fusion=Concat(), heads=HEADS)
EXAMPLES = 12


def make_batch(rng):
    return Batch(
        inputs={"x": rng.normal(size=(EXAMPLES, 4)).astype(np.float32)},
        present={"x": np.ones(EXAMPLES, bool)},
        lengths={},
        targets={
            "kind": rng.integers(0, 3, EXAMPLES).astype(np.int32),
            "size": rng.normal(size=EXAMPLES).astype(np.float32),
        },
        labeled={t: rng.random(EXAMPLES) < 0.8 for t in ("kind", "size")},
    )


def take_step(batch, balancer, model=MODEL):
    batch, optimizer = jax.tree.map(jnp.asarray, batch), optax.sgd(0.5)
    state = start(model, batch, optimizer, balancer)
    after, metrics = jax.jit(make_train_step(model, optimizer, balancer))(state, batch)
    return state, after, {name: float(t / n) for name, (t, n) in metrics.items()}


def test_whole_weights_are_repetitions():
    rng = np.random.default_rng(0)
    batch = make_batch(rng)
    counts = {t: rng.integers(0, 4, EXAMPLES) for t in ("kind", "size")}
    repeated = jax.tree.map(lambda x: np.repeat(x, 3, axis=0), batch)
    copy = np.tile(np.arange(3), EXAMPLES)
    for task, count in counts.items():
        repeated.labeled[task][copy >= np.repeat(count, 3)] = False
    # Only ratios matter; those of `kind` sum to less than 1.
    weights = {"kind": 0.01 * counts["kind"], "size": counts["size"]}
    weights = {t: np.where(batch.labeled[t], w, np.nan) for t, w in weights.items()}
    _, a, weighted = take_step(batch._replace(weights=weights), balance.equal())
    _, b, plain = take_step(repeated, balance.equal())
    chex.assert_trees_all_close(a.params, b.params, atol=bound_difference(100))
    assert weighted == pytest.approx(plain, rel=1e-5)


def test_one_step_of_weighted_regression_in_closed_form():
    batch = make_batch(np.random.default_rng(1))
    w = np.random.default_rng(2).random(EXAMPLES) / 50
    state, after, metrics = take_step(batch._replace(weights={"size": w}), balance.equal(), LINEAR)
    w = np.where(batch.labeled["size"], w, 0)
    x, y = (np.asarray(a, np.float64) for a in (batch.inputs["x"], batch.targets["size"]))
    kernel = np.asarray(state.params["heads_size"]["output"]["kernel"], np.float64)[:, 0]
    error = x @ kernel - y
    assert metrics["loss/size"] == pytest.approx((w * error**2).sum() / w.sum(), rel=1e-5)
    gradient = 2 * (w * error) @ x / w.sum()
    found = np.asarray(after.params["heads_size"]["output"]["kernel"])[:, 0]
    np.testing.assert_allclose(found, kernel - 0.5 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_batch_without_weight_counts_as_one_without_labels():
    batch = make_batch(np.random.default_rng(3))
    empty = batch._replace(weights={"size": np.zeros(EXAMPLES, np.float32)})
    unlabeled = batch._replace(labeled=batch.labeled | {"size": np.zeros(EXAMPLES, bool)})
    _, a, _ = take_step(empty, balance.mgda())
    _, b, _ = take_step(unlabeled, balance.mgda())
    chex.assert_trees_all_close(a.params, b.params, atol=bound_difference(100))
    chex.assert_tree_all_finite(a.params)


def test_evaluation_does_not_weigh():
    batch = make_batch(np.random.default_rng(4))
    batch = batch._replace(weights={"kind": np.ones(EXAMPLES)})
    weighted = batch._replace(weights={"kind": np.arange(EXAMPLES) / 7})
    variables = MODEL.init(jax.random.key(0), batch, method="call_all_parts")
    step = jax.jit(make_eval_step(MODEL))
    chex.assert_trees_all_equal(step(variables, weighted), step(variables, batch))
