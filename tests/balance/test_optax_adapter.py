"""Balancers as optax's aggregators and the other way round, with optax's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.experimental import aggregating

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.modalities.imbalance import opm
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from tests.tolerance import bound_difference

RNG = np.random.default_rng(0)
ROWS = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
HEADS = jnp.asarray(np.diag(RNG.normal(size=3)), jnp.float32)
TASKS = ("a", "b", "c")


def update(balancer, labeled=(True, True, True), state=None):
    mask = jnp.asarray(labeled)
    rows = {"backbone": ROWS * mask[:, None], "head": HEADS * mask[:, None]}
    state = (
        balancer.init(TASKS, {"backbone": jnp.zeros(4), "head": None}) if state is None else state
    )
    gradient, _, state = balancer.update(
        jnp.ones(3) * mask,
        pullback_from_jacobian(rows, {"backbone": True, "head": False}),
        state,
        key=jax.random.key(0),
        labeled=mask,
    )
    return gradient, state


def test_the_average_of_optax_balances():
    """Heads keep their own gradients; a task without labels is not averaged in."""
    balancer = balance.from_aggregator(aggregating.average_per_element_updates(0))
    gradient, _ = update(balancer)
    np.testing.assert_allclose(gradient["backbone"], ROWS.mean(0), rtol=1e-5)
    np.testing.assert_allclose(gradient["head"], jnp.diag(HEADS), rtol=1e-6)
    gradient, _ = update(balancer, (True, False, True))
    np.testing.assert_allclose(gradient["backbone"], (ROWS[0] + ROWS[2]) / 2, rtol=1e-5)


def test_an_aggregator_with_memory_keeps_it():
    """Accumulation over two steps: nothing, then the mean."""
    balancer = balance.from_aggregator(aggregating.average_incrementally_updates(0, 2))
    first, state = update(balancer)
    second, _ = update(balancer, state=state)
    np.testing.assert_array_equal(first["backbone"], 0)
    np.testing.assert_allclose(second["backbone"], ROWS.mean(0), rtol=1e-5)


def test_a_chain_of_optax_clips_each_task_and_averages():
    clip = jax.vmap(lambda tree: optax.projections.projection_l2_ball(tree, 0.5))
    chain = aggregating.process(
        optax.stateless(lambda rows, _: clip(rows)),
        aggregating.average_per_element_updates(0),
        optax.identity(),
    )
    gradient, _ = update(balance.from_aggregator(chain))
    unit = ROWS / jnp.linalg.norm(ROWS, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient["backbone"], 0.5 * unit.mean(0), rtol=1e-5)


@pytest.mark.slow
def test_the_step_trains_with_an_aggregator(toy):
    """The average over tasks is equal weights of one half on the shared parameters."""
    model, batch = toy.model(), jax.tree.map(jnp.asarray, toy.batch(16, 0))
    results = []
    for balancer in (
        balance.from_aggregator(aggregating.average_per_element_updates(0)),
        balance.from_gram(lambda gram, *, key, labeled: jnp.full(2, 0.5)),
    ):
        start = functools.partial(init_state, model, optax.sgd(0.1), balancer, batch)
        state = jax.jit(start)(jax.random.key(0))
        step = jax.jit(make_train_step(model, optax.sgd(0.1), balancer))
        results.append(step(state, batch)[0].params)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=bound_difference(50))


def test_a_balancer_aggregates_in_a_chain_of_optax():
    """Preprocess, balance by PCGrad, then Adam, all in optax; and the losses reach the balancer."""
    params = {"p": jnp.zeros(4)}
    aggregator = balance.to_aggregator(balance.pcgrad(), TASKS)
    chain = aggregating.process(optax.identity(), aggregator, optax.sgd(1.0))
    updates, state = jax.jit(chain.update)({"p": ROWS}, chain.init(params))
    pullback, key = pullback_from_jacobian({"p": ROWS}, {"p": True}), jax.random.key(0)
    expected, *_ = balance.pcgrad().update(
        jnp.ones(3), pullback, (), key=jax.random.fold_in(key, 0), labeled=jnp.ones(3, bool)
    )
    np.testing.assert_allclose(updates["p"], -expected["p"], rtol=1e-5)
    assert int(state[1].step) == 1
    by_loss = balance.to_aggregator(balance.scale_invariant(), TASKS)
    labeled = jnp.array([True, True, False])
    gradient, _ = by_loss.update(
        {"p": ROWS}, by_loss.init(params), losses=jnp.array([2.0, 4.0, 0.0]), labeled=labeled
    )
    np.testing.assert_allclose(gradient["p"], ROWS[0] / 2 + ROWS[1] / 4, rtol=1e-5)


def test_there_and_back_is_the_same():
    back = balance.from_aggregator(balance.to_aggregator(balance.uncertainty(), TASKS))
    gradient, _ = update(back)
    np.testing.assert_allclose(gradient["backbone"], ROWS.sum(0) / 2, rtol=1e-5)


def test_what_an_aggregator_cannot_give_is_refused():
    with pytest.raises(ValueError, match="second evaluation"):
        balance.to_aggregator(balance.famo(), TASKS)
    with pytest.raises(ValueError, match="or the model"):
        balance.to_aggregator(opm(balance.equal()), TASKS)
