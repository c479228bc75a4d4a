"""PCGrad's coefficients against its projections of the gradients themselves, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.balance.gramian.pcgrad import draw_task_orders, pcgrad_weights


def by_projection(rows, orders):
    """Algorithm 1 of the paper: the projected gradients, one per row."""
    total = []
    for i, order in enumerate(orders):
        g = rows[i].copy()
        for j in order:
            if j != i and g @ rows[j] < 0:
                g -= (g @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total.append(g)
    return np.array(total)


def orders_of_labeled(drawn):
    """The orders that `Problems.weights` draws, without the tasks that do not exist."""
    keys = jax.random.split(jax.random.key(0), len(drawn.rows))
    slots = drawn.labeled.shape[1]
    orders = np.asarray(jax.jit(jax.vmap(lambda k: draw_task_orders(k, slots)))(keys))
    for rows, mask in zip(orders, drawn.labeled, strict=True):
        position = np.cumsum(mask) - 1
        yield [[position[j] for j in order if mask[j]] for order in rows[mask]]


def test_the_sum_is_that_of_the_projected_gradients(problems):
    drawn = problems(spread=2)
    got, exact = drawn.weights(pcgrad_weights), []
    for w, (rows, _), orders in zip(got, drawn.each(), orders_of_labeled(drawn), strict=True):
        projected = by_projection(rows, orders)
        error = np.linalg.norm(w @ rows - projected.sum(0))
        lengths, before = (np.linalg.norm(x, axis=1).sum() for x in (projected, rows))
        assert error < 1e-4 * lengths + 3e-6 * before  # projections can cancel nearly all
        exact.append(error < 1e-4 * np.linalg.norm(projected.sum(0)))
    assert np.mean(exact) > 0.9


def test_two_conflicting_gradients_in_closed_form(weights):
    """(1, 0) and (-1, 1): the projections are (.5, .5) and (0, 1)."""
    rows = np.array([[1.0, 0], [-1, 1]])
    w = weights(pcgrad_weights, rows)
    np.testing.assert_allclose(w, [2.0, 1.5], atol=1e-6)
    np.testing.assert_allclose(w @ rows, [0.5, 1.5], atol=1e-6)


def test_every_order_is_drawn():
    rows = np.random.default_rng(0).normal(size=(3, 3))
    rows -= rows.mean(0)  # plenty of conflict
    gram = jnp.asarray(rows @ rows.T, jnp.float32)
    possible = {
        tuple(np.round(by_projection(rows, orders).sum(0), 3))
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)
    }

    @jax.jit
    @jax.vmap
    def program(key):
        return pcgrad_weights(gram, key=key, labeled=jnp.ones(3, bool))

    weights = np.asarray(program(jax.random.split(jax.random.key(0), 200)))
    drawn = {tuple(np.round(w @ rows, 3)) for w in weights}
    assert len(possible) > 1
    assert drawn == possible
