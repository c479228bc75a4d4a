"""GradVac's coefficients against turning the gradients themselves, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import balance
from mmjax.balance.gramian.gradvac import gradvac_weights
from mmjax.balance.gramian.pcgrad import draw_task_orders, pcgrad_weights

BETA = 0.1


def by_turning(rows, targets, orders):
    """Algorithm 1 of the paper: (the turned gradients, one per row; the new targets)."""
    norms, targets = np.linalg.norm(rows, axis=1), targets.copy()
    turned = []
    for i, order in enumerate(orders):
        g, gross = rows[i].copy(), norms[i]  # gross: the length of all that was added up to g
        for j in order:
            if j == i or np.linalg.norm(g) < 1e-3 * gross:
                continue
            length = np.linalg.norm(g)
            phi, target = g @ rows[j] / length / norms[j], targets[i, j]
            if phi < target:
                sines = np.sqrt(max(1 - phi**2, 0)), np.sqrt(1 - target**2)
                step = length * (target * sines[0] - phi * sines[1]) / (norms[j] * sines[1])
                g += step * rows[j]
                gross += abs(step) * norms[j]
            targets[i, j] = (1 - BETA) * target + BETA * phi
        turned.append(g)
    return np.array(turned), targets


def test_the_sum_and_the_targets_are_those_of_the_turned_gradients(problems):
    drawn = problems(spread=2)
    n, slots = drawn.labeled.shape
    targets = np.random.default_rng(0).uniform(-0.9, 0.9, (n, slots, slots)).astype(np.float32)
    keys = jax.random.split(jax.random.key(3), n)

    @jax.jit
    @jax.vmap
    def program(rows, targets, labeled, key):
        gram = jnp.dot(rows, rows.T, precision="highest")
        orders = draw_task_orders(key, slots)
        return *gradvac_weights(gram, targets, key=key, labeled=labeled, beta=BETA), orders

    w, new, orders = map(np.asarray, program(drawn.rows, targets, drawn.labeled, keys))
    exact = []
    for k, (rows, _) in enumerate(drawn.each()):
        mask = drawn.labeled[k]
        position, pairs = np.cumsum(mask) - 1, np.ix_(mask, mask)
        task_orders = [[position[j] for j in order if mask[j]] for order in orders[k][mask]]
        turned, expected = by_turning(rows, targets[k][pairs].astype(np.float64), task_orders)
        error = np.linalg.norm(w[k][mask].astype(np.float64) @ rows - turned.sum(0))
        lengths, before = (np.linalg.norm(x, axis=1).sum() for x in (turned, rows))
        # Each of t gradients is turned up to t - 1 times, and each turn rounds both lengths.
        rounding = 4 * np.finfo(np.float32).eps * max(mask.sum(), 8) ** 2
        assert error < rounding * (lengths + before)  # opposed gradients cancel
        exact.append(error < 1e-4 * np.linalg.norm(turned.sum(0)))
        # Of a gradient that others cancel, up to round-off, the cosines are not exact.
        assert np.quantile(np.abs(new[k][pairs] - expected), 0.95) < 1e-3
        outside = ~(mask[:, None] & mask)
        np.testing.assert_array_equal(new[k][outside], targets[k][outside])
    assert np.mean(exact) > 0.9


def test_with_targets_of_zero_it_is_pcgrad(problems, weights):
    drawn = problems(n=40)
    zeros = jnp.zeros((40, 40))

    def first(gram, *, key, labeled):
        return gradvac_weights(gram, zeros, key=key, labeled=labeled)[0]

    for w, expected, (rows, _) in zip(
        drawn.weights(first), drawn.weights(pcgrad_weights), drawn.each(), strict=True
    ):
        tolerance = 1e-3 * np.linalg.norm(rows, axis=1).sum()
        np.testing.assert_allclose(w @ rows, expected @ rows, atol=tolerance)


@jax.jit
def of_two(gram, targets):
    return gradvac_weights(gram, targets, key=jax.random.key(0), labeled=jnp.ones(2, bool))


def test_a_turned_gradient_has_the_target_cosine():
    """(1, 0) and (0, 2) with the target .6: each gains .75 of its length along the other."""
    gram, targets = jnp.diag(jnp.array([1.0, 4.0])), jnp.full((2, 2), 0.6)
    w, new = of_two(gram, targets)
    np.testing.assert_allclose(w, [1 + 2 * 0.75, 1 + 0.75 / 2], rtol=1e-5)
    np.testing.assert_allclose(new, [[0.6, 0.594], [0.594, 0.6]], rtol=1e-5)


@pytest.mark.parametrize("cosine", [1.0, -1.0])
def test_targets_may_reach_one(cosine):
    gram = jnp.array([[1.0, cosine], [cosine, 1.0]])
    w, new = of_two(gram, gram)
    assert np.isfinite(w).all() and np.isfinite(new).all()
    np.testing.assert_allclose(w, [1, 1], atol=2e-3)


def test_beta_is_a_share():
    with pytest.raises(ValueError, match=r"beta is 1\.5"):
        balance.gradvac(beta=1.5)
