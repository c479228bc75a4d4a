"""SDMGrad and MoDo against plain loops in float64, and what two samples are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Regression
from mmjax.model import Model
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step

TASKS, SIZE = ("a", "b", "c"), 6
SHARED = {"x": True, "head": False}
OPTIONS = {"key": jax.random.key(0), "labeled": jnp.ones(3, bool)}


def projected(x):
    """The nearest point of the simplex, by trying every size of its support."""
    order = np.sort(x)[::-1]
    levels = (np.cumsum(order) - 1) / np.arange(1, len(x) + 1)
    return np.maximum(x - levels[order > levels][-1], 0)


def sdmgrad_by_hand(gram, w, pull=0.3, rate=1.0, momentum=0.5, steps=20):
    gram, velocity = gram / np.linalg.norm(gram), 0
    for _ in range(steps):
        velocity = momentum * velocity + gram @ (w + pull / len(w))
        w = projected(w - rate * velocity)
    return w, w + pull / len(w)


def modo_by_hand(gram, w, rate=1e-3, regularization=0.1):
    w = projected(w - rate * (gram @ w + regularization * w))
    return w, w


def jacobian(rng):
    return {"x": rng.normal(size=(3, SIZE)), "head": np.diag(rng.normal(size=3))}


def pullback(whole, *parts):
    whole, *parts = (
        pullback_from_jacobian(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), j), SHARED)
        for j in (whole, *parts)
    )
    return whole._replace(parts=tuple(parts))


@pytest.mark.parametrize(
    ("make", "by_hand"), [(balance.sdmgrad, sdmgrad_by_hand), (balance.modo, modo_by_hand)]
)
@pytest.mark.parametrize("weigh_heads", [False, True])
def test_weights_follow_the_cross_gramian(make, by_hand, weigh_heads):
    """J_1 J_2', which is not symmetric; the direction is that of the whole batch."""
    rng = np.random.default_rng(0)
    balancer = make(weigh_heads=weigh_heads)
    update = jax.jit(
        lambda whole, one, two, state: balancer.update(
            jnp.ones(3), pullback(whole, one, two), state, **OPTIONS
        )
    )
    state, expected = balancer.init(TASKS, {}), np.full(3, 1 / 3)
    for _ in range(20):
        whole, one, two = (jacobian(rng) for _ in range(3))
        one["x"] *= 10.0  # so that MoDo's weights move
        gradient, computed, state = update(whole, one, two, state)
        expected, w = by_hand(one["x"] @ two["x"].T, expected)
        np.testing.assert_allclose(state, expected, atol=2e-5)
        np.testing.assert_allclose(computed, w, atol=2e-5)
        np.testing.assert_allclose(gradient["x"], w @ whole["x"], atol=2e-4)
        own = w @ whole["head"] if weigh_heads else whole["head"].sum(0)
        np.testing.assert_allclose(gradient["head"], own, atol=2e-4)
    assert np.ptp(expected) > 0.01


@pytest.mark.parametrize(
    ("make", "by_hand"),
    [
        (lambda: balance.sdmgrad(steps=8), functools.partial(sdmgrad_by_hand, steps=8)),
        (lambda: balance.modo(learning_rate=0.5), functools.partial(modo_by_hand, rate=0.5)),
    ],
    ids=["sdmgrad", "modo"],
)
@pytest.mark.parametrize("tasks", [2, 8, 40])
def test_random_gradients_of_two_to_forty_tasks(make, by_hand, tasks):
    """Eighty draws each: whatever the angles, lengths and earlier weights."""
    rng, balancer = np.random.default_rng(tasks), make()
    labeled = jnp.ones(tasks, bool)

    @jax.jit
    def update(one, two, state):
        shared = {"x": True}
        parts = (
            pullback_from_jacobian({"x": one}, shared),
            pullback_from_jacobian({"x": two}, shared),
        )
        whole = parts[0]._replace(parts=parts)
        return balancer.update(
            jnp.ones(tasks), whole, state, key=jax.random.key(0), labeled=labeled
        )[1:]

    spread = 0.0
    for _ in range(80):
        common = rng.normal(size=(tasks, 1)) * rng.normal(size=50)
        one, two = (
            (rng.normal(size=(tasks, 50)) + 2 * common) * rng.lognormal(size=(tasks, 1))
            for _ in range(2)
        )
        before = rng.dirichlet(np.ones(tasks))
        computed, state = update(*(jnp.asarray(x, jnp.float32) for x in (one, two, before)))
        expected, w = by_hand(one @ two.T, before)
        np.testing.assert_allclose(state, expected, atol=1e-4)
        np.testing.assert_allclose(computed, w, atol=1e-4)
        spread = max(spread, np.ptp(expected))
    assert spread > 0.1


def test_sdmgrad_tends_to_the_shifted_least_point():
    rows = np.random.default_rng(4).normal(size=(3, SIZE)) + 0.5
    gram = rows @ rows.T

    def shifted(w):
        return (w + 0.3 / 3) @ gram @ (w + 0.3 / 3)

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    least = minimize(
        shifted, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=simplex, tol=1e-12
    )
    balancer = balance.sdmgrad(steps=400)
    exact = pullback({"x": rows, "head": np.eye(3)})  # no parts: the gradients are exact
    state = jax.jit(lambda s: balancer.update(jnp.ones(3), exact, s, **OPTIONS)[2])(
        balancer.init(TASKS, {})
    )
    np.testing.assert_allclose(state, least.x, atol=1e-3)


@pytest.mark.parametrize("make", [balance.sdmgrad, balance.modo])
def test_a_task_without_labels_keeps_its_weight(make):
    """The others divide what is left, as they would the whole if there were only these."""
    rng = np.random.default_rng(5)
    rows = {"x": rng.normal(size=(3, SIZE)), "head": np.eye(3)}
    two = {k: v[:2] for k, v in rows.items()}
    silent = {k: v * np.array([[1], [1], [0]]) for k, v in rows.items()}
    balancer = make()

    @jax.jit
    def update(rows, state, labeled):
        options = {"key": jax.random.key(0), "labeled": labeled}
        return balancer.update(jnp.ones(len(labeled)), pullback(rows), state, **options)[1:]

    w, new = update(silent, jnp.array([0.2, 0.3, 0.5]), jnp.array([True, True, False]))
    expected, alone = update(two, jnp.array([0.4, 0.6]), jnp.ones(2, bool))
    np.testing.assert_allclose(w, [*expected, 0], atol=1e-6)
    np.testing.assert_allclose(new, [*(alone / 2), 0.5], atol=1e-6)


def test_two_samples_take_the_noise_out():
    """The mean of J_1 J_2' over many draws is that of the exact gradients, of J_1 J_1' not."""
    rng = np.random.default_rng(6)
    rows, noise = rng.normal(size=(3, SIZE)), rng.normal(size=(2, 4000, 3, SIZE))
    one, two = rows + noise[0], rows + noise[1]
    exact = rows @ rows.T
    crossed = np.einsum("nip,njp->ij", one, two) / 4000
    same = np.einsum("nip,njp->ij", one, one) / 4000
    assert np.abs(crossed - exact).max() < 0.3
    assert np.abs(same - exact).max() > SIZE - 1


@pytest.mark.slow
def test_a_step_splits_its_batch(toy):
    """Both halves reach the balancer, from a model."""
    model = Model({"vector": MLPEncoder((4,))}, Concat(), {"size": Regression()})
    pieces = model, optax.sgd(0.1), balance.sdmgrad()
    batch = jax.tree.map(jnp.asarray, toy.batch(16, 0))
    state = init_state(*pieces, batch, jax.random.key(0))
    _, metrics = jax.jit(make_train_step(*pieces))(state, batch)
    np.testing.assert_allclose(metrics["weight/size"][0], 1.3, rtol=1e-5)
