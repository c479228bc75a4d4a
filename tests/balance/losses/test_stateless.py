"""Scalarizations of the losses against finite differences in float64; draws, periods, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian

TASKS = ("a", "b", "c")


def names(tasks):
    return [f"task{i:02}" for i in range(tasks)]


def step(balancer, losses, labeled, state, key):
    """Gradient, weights and state; the gradients are unit vectors, so the sum is the weights."""
    rows = {"p": jnp.eye(losses.shape[-1])}
    gradient, w, state = balancer.update(
        losses, pullback_from_jacobian(rows, {"p": True}), state, key=key, labeled=labeled
    )
    return gradient["p"], w, state


def update(balancer, losses, labeled=None, state=None, key=0):
    losses = jnp.asarray(losses, jnp.float32)
    labeled = jnp.ones(len(losses), bool) if labeled is None else jnp.asarray(labeled)
    state = balancer.init(TASKS[: len(losses)], None) if state is None else state
    _, w, state = step(balancer, losses, labeled, state, jax.random.key(key))
    return np.asarray(w, np.float64), state


def slopes(function, losses):
    """Derivatives by central differences in float64."""
    steps = np.diag(1e-6 * np.abs(losses))
    return np.array([(function(losses + e) - function(losses - e)) / (2 * e.sum()) for e in steps])


def geometric(losses, p):
    return np.exp(np.log(losses).mean())


def stch(losses, p, mu=0.7):
    return mu * np.log(np.exp(p * (losses - 0.1) / mu).sum())


def pbi(losses, p, penalty=3.0):
    excess, u = losses - 0.1, p / np.linalg.norm(p)
    return abs(excess @ u) + penalty * np.linalg.norm(excess - (excess @ u) * u)


def cosmos(losses, p, penalty=2.0):
    return p @ losses - penalty * p @ losses / np.linalg.norm(p) / np.linalg.norm(losses)


PREFERENCE = {name: 1.0 + i % 3 for i, name in enumerate(names(40))}
IDEAL = dict.fromkeys(PREFERENCE, 0.1)
SCALARIZATIONS = {
    "geometric": (balance.geometric, geometric),
    "scale_invariant": (balance.scale_invariant, lambda losses, p: np.log(losses).sum()),
    "stch": (lambda: balance.stch(0.7, PREFERENCE, IDEAL), stch),
    "pbi": (lambda: balance.pbi(PREFERENCE, 3.0, IDEAL), pbi),
    "cosmos": (lambda: balance.cosmos(PREFERENCE), cosmos),
}


@pytest.mark.parametrize("name", SCALARIZATIONS)
def test_weights_are_the_derivative_of_the_scalarization(name):
    """200 cases of 1 to 40 labeled tasks among 40; the others have weight 0."""
    factory, function = SCALARIZATIONS[name]
    balancer, rng = factory(), np.random.default_rng(0)
    labeled = rng.random((200, 40)) < rng.random((200, 1))
    labeled[:, 0] = True
    labeled[:40] = np.tri(40, dtype=bool)
    losses = np.where(labeled, np.exp(rng.normal(size=(200, 40))) + 0.1, 0).astype(np.float32)
    state = balancer.init(names(40), None)
    run = jax.jit(jax.vmap(lambda x, m: step(balancer, x, m, state, jax.random.key(0))[:2]))
    gradient, w = map(np.asarray, run(losses, labeled))
    np.testing.assert_allclose(gradient, w, rtol=1e-6)
    p = np.array(list(PREFERENCE.values()))
    for case in range(200):
        mask = labeled[case]
        expected = slopes(
            lambda x, mask=mask: function(x, p[mask] / p[mask].sum()),
            losses[case, mask].astype(np.float64),
        )
        error = np.linalg.norm(w[case, mask] - expected)
        assert error <= 1e-4 * np.linalg.norm(expected)
        assert not w[case, ~mask].any()


def test_a_smooth_maximum_becomes_the_maximum():
    w, _ = update(balance.stch(mu=1e-3), [1.0, 3.0, 2.0])
    np.testing.assert_allclose(w, [0, 1 / 3, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["pbi", "cosmos"])
def test_losses_along_the_preference_need_no_penalty(name):
    w, _ = update(getattr(balance, name)({"a": 1.0, "b": 2.0, "c": 2.0}), [2.0, 4.0, 4.0])
    np.testing.assert_allclose(w / w.sum(), [0.2, 0.4, 0.4], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balance.rlw("uniform"), "'uniform'; it must be"),
        (lambda: balance.dwa(0.0), "temperature=0.0 and steps=100 must be positive"),
        (lambda: balance.dwa(steps=0), "steps=0"),
        (lambda: balance.stch(0.0), "stch: mu=0.0 must be positive"),
        (lambda: balance.log_stch(warmup=0), "warmup=0 must be at least 1"),
        (lambda: balance.pbi({"a": 1.0}).init(TASKS, None), r"pbi: .*\['a'\].*\['a', 'b', 'c'\]"),
        (
            lambda: balance.stch(ideal={"x": 1.0}).init(TASKS, None),
            r"ideal losses are given for \['x'\]",
        ),
        (lambda: balance.cosmos({"a": 0.0}).init(TASKS, None), r"\{'a': 0.0\} must be positive"),
        (lambda: balance.famo(bounds={"a": 1.0}).init(TASKS, None), "famo: bounds are given for"),
        (lambda: balance.static({"a": 1.0}).init(TASKS, None), r"the tasks are \['a', 'b', 'c'\]"),
        (
            lambda: balance.static(dict.fromkeys("abcx", 1.0)).init(TASKS, None),
            r"weights are given for \['a', 'b', 'c', 'x'\]",
        ),
        (lambda: balance.static({"a": 1.0, "b": -1.0}), r"'b': -1"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_equal_sums_and_static_weighs():
    np.testing.assert_array_equal(update(balance.equal(), [1, 2, 3])[0], [1, 1, 1])
    weights = {"c": 2.0, "a": 1.0, "b": 0.5}
    np.testing.assert_array_equal(update(balance.static(weights), [1, 2, 3])[0], [1, 0.5, 2])


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_random_weights_are_drawn_from_their_distribution(distribution):
    """Second moments of 20,000 draws over two labeled tasks of three, against quadrature."""
    balancer, labeled = balance.rlw(distribution), jnp.array([True, False, True])
    keys = jax.random.split(jax.random.key(0), 20_000)
    w = jax.vmap(lambda k: step(balancer, jnp.ones(3), labeled, (), k)[1])(keys)
    w = np.asarray(w, np.float64)
    np.testing.assert_allclose(w.sum(1), 2, rtol=1e-5)
    assert not w[:, 1].any()
    np.testing.assert_allclose(w.mean(0), [1, 0, 1], atol=0.02)
    x = np.linspace(-12, 12, 4001)  # the difference of two normal draws has variance 2
    density = np.exp(-(x**2) / 4) / np.exp(-(x**2) / 4).sum()
    second = {"normal": (density * (2 / (1 + np.exp(-x))) ** 2).sum(), "dirichlet": 4 / 3}
    np.testing.assert_allclose((w[:, 0] ** 2).mean(), second[distribution], atol=0.02)
