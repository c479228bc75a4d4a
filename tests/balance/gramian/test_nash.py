"""Bargaining solutions against Newton's method in float64 and closed forms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import balance
from mmjax.balance.gramian.nash import fairgrad_weights, nash_weights
from mmjax.balance.pullback import pullback_from_jacobian


def bargain(rows, power):
    """The w > 0 with rows rows' w = w^-power: Newton steps for e^x, with a search on each."""
    norms = np.linalg.norm(rows, axis=1)
    units, p = rows / norms[:, None], norms ** (power - 1)
    x = p ** (1 / (1 + power))

    def slope(x):
        return units @ (units.T @ x) - p * x**-power

    def value(x):
        over = np.log(x) if power == 1 else x ** (1 - power) / (1 - power)
        return ((units.T @ x) ** 2).sum() / 2 - (p * over).sum()

    for _ in range(200):
        g = slope(x)
        dx = -np.linalg.solve(units @ units.T + np.diag(power * p * x ** (-power - 1)), g)
        length = min(1.0, 0.9 / max(1e-9, (-dx / x).max()))
        while value(x + length * dx) > value(x) + 0.1 * length * g @ dx and length > 1e-12:
            length /= 2
        x = x + length * dx
        if np.abs(dx / x).max() < 1e-12:
            break
    return x / norms


@pytest.mark.parametrize(
    ("alpha", "spread", "n"),
    [
        (1, 3.0, 200),
        pytest.param(2, 1.0, 200, marks=pytest.mark.slow),
        (0.5, 1.0, 80),
        pytest.param(5, 1.0, 80, marks=pytest.mark.slow),
    ],
)
def test_every_gain_is_in_proportion_to_its_weight(problems, leaning, alpha, spread, n):
    """Gradients within a cone, of which many conflict."""
    sets = leaning(problems(spread, n=n), 1.5)
    computed = sets.weights(partial(fairgrad_weights, alpha=float(alpha)))
    for (rows, _), w in zip(sets.each(), computed, strict=True):
        expected = bargain(rows, 1 / alpha) @ rows
        assert np.linalg.norm(w @ rows - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_two_gradients_in_closed_form(weights, scale):
    """w_i = 1 / (|g_i| sqrt(1 + cosine)): half the angle to each, at any scale; |d|^2 = 2."""
    rows = np.array([[3.0, 0, 1], [-1, 2, 0]]) * [[scale], [1 / scale**0.5]]
    norms = np.linalg.norm(rows, axis=1)
    cosine = rows[0] @ rows[1] / norms.prod()
    w = weights(nash_weights, rows)
    np.testing.assert_allclose(w, 1 / (norms * np.sqrt(1 + cosine)), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(w @ rows), 2**0.5, rtol=1e-5)


def test_the_direction_that_torchjd_publishes(weights):
    """Clipped to norm 1, and nearly solved, as by the authors' code."""
    rows = np.array([[-4.0, 1, 1], [6, 1, 1]])
    d = weights(nash_weights, rows) @ rows
    np.testing.assert_allclose(d / np.linalg.norm(d), [0.0542, 0.7061, 0.7061], atol=2e-3)


def test_who_gains_nothing_has_no_part(weights):
    w = weights(nash_weights, [[0, 0], [2, 0], [0, 4]])
    np.testing.assert_allclose(w, [0, 0.5, 0.25], rtol=1e-5)
    opposed = np.array([[1.0, 2], [-1, -2]])
    w = weights(nash_weights, opposed)
    assert (w > 0).all() and (w < 1e5).all()
    assert np.abs(w @ opposed).max() < 1e-2


@pytest.mark.parametrize("weigh_heads", [False, True])
def test_weights_are_kept_between(weigh_heads):
    """Made at steps 0 and 2; a task that has no label then keeps the weight that it had."""
    balancer = balance.nash(every=2, weigh_heads=weigh_heads)
    state = balancer.init(("a", "b"), {})

    @jax.jit
    def step(scale, labeled, state):
        rows = scale * jnp.eye(2) * labeled[:, None]
        jacobian = {"x": rows, "head": labeled[:, None] * jnp.eye(2)}
        return balancer.update(
            jnp.ones(2),
            pullback_from_jacobian(jacobian, {"x": True, "head": False}),
            state,
            key=jax.random.key(0),
            labeled=labeled,
        )

    both, first = jnp.array([True, True]), jnp.array([True, False])
    expected = [(2.0, both, [0.5, 0.5]), (4.0, both, [0.5, 0.5]), (4.0, first, [0.25, 0])]
    for scale, labeled, w in [*expected, (8.0, both, [0.25, 0.5])]:
        gradient, computed, state = step(scale, labeled, state)
        np.testing.assert_allclose(computed, w, rtol=1e-5)
        np.testing.assert_allclose(gradient["x"], scale * np.array(w), rtol=1e-5)
        np.testing.assert_allclose(gradient["head"], w if weigh_heads else labeled, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: balance.nash(every=0), "every is 0"),
        (lambda: balance.fairgrad(alpha=0.0), "alpha is 0.0; it must be positive"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
