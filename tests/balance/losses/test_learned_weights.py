"""Learned weights: their objective, its minimum, and tasks without labels."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian

METHODS = {
    "uncertainty": (lambda s, x: 0.5 * np.exp(-s) * x + 0.5 * s, lambda x: 1 / (2 * x)),
    "imtl_l": (lambda s, x: np.exp(s) * x - s, lambda x: 1 / x),
}
LOSSES = jnp.array([0.1, 1.0, 20.0])
EVERY = jnp.ones(3, bool)


def init(balancer):
    return balancer.init(("a", "b", "c"), None)


def update(balancer, losses, labeled, state):
    pullback = pullback_from_jacobian({"p": jnp.eye(3)}, {"p": True})
    key = jax.random.key(0)
    _, w, state = balancer.update(losses, pullback, state, key=key, labeled=labeled)
    return w, state


@pytest.mark.parametrize("name", METHODS)
def test_the_minimum_is_reached(name):
    balancer = getattr(balance, name)(optax.adam(0.05))

    def step(state, _):
        w, state = update(balancer, LOSSES, EVERY, state)
        return state, w

    w = jax.lax.scan(step, init(balancer), None, 600)[1][-1]
    np.testing.assert_allclose(w, METHODS[name][1](np.asarray(LOSSES)), rtol=2e-2)


@pytest.mark.parametrize("name", METHODS)
def test_it_descends_the_gradient_of_its_objective(name):
    s, eps = np.array([0.2, -0.5, 1.0]), 1e-6
    objective, losses = METHODS[name][0], np.asarray(LOSSES, np.float64)
    slope = (objective(s + eps, losses) - objective(s - eps, losses)) / (2 * eps)
    balancer = getattr(balance, name)(optax.sgd(0.1))
    state = init(balancer)._replace(s=jnp.asarray(s, jnp.float32))
    _, new = update(balancer, LOSSES, EVERY, state)
    np.testing.assert_allclose(s - np.asarray(new.s), 0.1 * slope, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_a_task_without_labels_stays_where_it_is(name):
    balancer = getattr(balance, name)()
    state = init(balancer)
    for _ in range(3):
        _, state = update(balancer, LOSSES.at[1].set(0), jnp.array([True, False, True]), state)
    moved = jax.tree.map(lambda x: np.asarray(x) != 0, (state.s, state.opt_state[0].nu))
    for leaf in jax.tree.leaves(moved):
        np.testing.assert_array_equal(leaf, [True, False, True])


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_that_stays_zero_keeps_a_finite_weight(name):
    balancer = getattr(balance, name)(optax.sgd(10.0))

    def step(state, _):
        w, state = update(balancer, jnp.array([0.0, 1.0, 1e10]), EVERY, state)
        return state, w

    assert np.isfinite(jax.lax.scan(step, init(balancer), None, 100)[1]).all()
