"""FAMO against its algorithm in float64, and its second evaluation in a real step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step

TASKS = ("a", "b", "c")


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def by_algorithm(before, after, bounds, rate=0.025, decay=1e-3):
    """Weights of every step; the logits' gradient by finite differences of softmax(xi) . fall."""
    xi, m, v, weights = np.zeros(3), np.zeros(3), np.zeros(3), []
    for k in range(len(before)):
        z = softmax(xi) / (before[k] - bounds)
        weights.append(z / z.sum())
        fall = np.log(before[k] - bounds) - np.log(after[k] - bounds)
        slope = [(softmax(xi + e) @ fall - softmax(xi - e) @ fall) / 2e-6 for e in 1e-6 * np.eye(3)]
        g = np.array(slope) + decay * xi
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        unbiased = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
        xi = xi - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    return np.array(weights)


def test_it_follows_the_algorithm():
    rng = np.random.default_rng(0)
    bounds = {"a": 0.0, "b": -1.0, "c": 0.5}
    least = np.array(list(bounds.values()))
    before = least + np.exp(rng.normal(size=(50, 3)))
    after = least + (before - least) * np.exp(0.1 * rng.normal(size=(50, 3)))
    balancer = balance.famo(bounds=bounds)
    pullback, everything = pullback_from_jacobian({"p": jnp.eye(3)}, {"p": True}), jnp.ones(3, bool)

    def step(state, losses):
        _, w, state = balancer.update(
            losses[0], pullback, state, key=jax.random.key(0), labeled=everything
        )
        return balancer.after(state, *losses, labeled=everything), w

    pairs = jnp.asarray(before, jnp.float32), jnp.asarray(after, jnp.float32)
    _, w = jax.lax.scan(step, balancer.init(TASKS, None), pairs)
    np.testing.assert_allclose(w, by_algorithm(before, after, least), rtol=2e-3)


def test_a_task_without_labels_keeps_its_logit_and_moves_no_other():
    balancer, both = balance.famo(), jnp.ones(2, bool)
    mask = jnp.array([True, False, True])
    three, two = balancer.init(TASKS, None), balancer.init(TASKS[:2], None)
    for _ in range(3):
        losses = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.9, 0.0, 1.1])
        three = balancer.after(three, *losses, labeled=mask)
        two = balancer.after(two, *(x[jnp.array([0, 2])] for x in losses), labeled=both)
    np.testing.assert_allclose(three.logits[jnp.array([0, 2])], two.logits, rtol=1e-6)
    assert three.logits[1] == 0 and two.logits[0] > 0 > two.logits[1]


@pytest.mark.slow
def test_the_step_evaluates_the_same_batch_again(toy):
    """The logits move as by the losses of the batch before and after the update."""
    model, batch = toy.model(), jax.tree.map(jnp.asarray, toy.batch(32, 0))
    optimizer, balancer = optax.sgd(0.3), balance.famo()
    state = jax.jit(lambda k: init_state(model, optimizer, balancer, batch, k))(jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, balancer))
    new, metrics = step(state, batch)
    _, later = step(new, batch)

    def losses(metrics):
        return jnp.stack([metrics[f"loss/{t}"][0] / metrics[f"loss/{t}"][1] for t in model.heads])

    expected = balancer.after(
        state.balancer_state, losses(metrics), losses(later), labeled=jnp.ones(2, bool)
    )
    assert np.abs(expected.logits).min() > 1e-3
    np.testing.assert_allclose(new.balancer_state.logits, expected.logits, rtol=1e-4)
