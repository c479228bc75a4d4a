"""GradNorm against its objective, differentiated by finite differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax import balance
from mmjax.balance.gramian.gradnorm import MIN_WEIGHT
from mmjax.balance.pullback import pullback_from_jacobian

RATE, ALPHA = 0.3, 1.5


def slope(weights, norms, rates):
    """Finite differences of sum |w n - target|, with the target held constant."""
    target = (weights * norms).mean() * rates**ALPHA

    def objective(w):
        return np.abs(w * norms - target).sum()

    eps = 1e-7
    return np.array(
        [
            (objective(weights + e) - objective(weights - e)) / (2 * eps)
            for e in eps * np.eye(len(weights))
        ]
    )


def test_the_weights_descend_the_objective_and_keep_their_sum(problems, run):
    steps = [problems(spread=0.5, seed=s) for s in range(3)]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.scale(-RATE))
    got = run(balance.gradnorm(ALPHA, optimizer), steps)
    for n in range(len(steps[0].rows)):
        weights, initial = np.ones(40), np.zeros(40)
        for k, drawn in enumerate(steps):
            mask = drawn.labeled[n]
            rows, losses = (x[n][mask].astype(np.float64) for x in (drawn.rows, drawn.losses))
            np.testing.assert_allclose(got.weights[n, k], weights * mask, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                got.task_specific[n, k], weights * mask, rtol=1e-3, atol=1e-4
            )
            w = np.asarray(got.weights[n, k], np.float64)[mask]
            expected = w @ rows
            np.testing.assert_allclose(
                got.shared[n, k], expected, atol=1e-5 * np.abs(w[:, None] * rows).sum(0).max()
            )
            initial[mask] = np.where(initial[mask] > 0, initial[mask], losses)
            ratios = losses / initial[mask]
            step = slope(weights[mask], np.linalg.norm(rows, axis=1), ratios / ratios.mean())
            moved = weights[mask] - RATE * step / max(1, np.linalg.norm(step))
            moved = np.maximum(moved, MIN_WEIGHT)
            weights[mask] = moved * weights[mask].sum() / moved.sum()
        np.testing.assert_allclose(weights.sum(), 40)
        np.testing.assert_allclose(got.state.weights[n], weights, rtol=1e-3, atol=1e-4)


def learn(rows, losses, steps=800, alpha=1.5, labeled=None):
    """The weights after so many steps on the same gradients and losses [steps t]."""
    t = len(rows)
    balancer = balance.gradnorm(alpha, optax.sgd(lambda k: 0.05 / (1 + 0.02 * k)))
    pullback = pullback_from_jacobian({"p": jnp.asarray(rows, jnp.float32)}, {"p": True})
    labeled = jnp.ones(t, bool) if labeled is None else jnp.asarray(labeled)

    def step(state, losses):
        _, w, state = balancer.update(
            losses, pullback, state, key=jax.random.key(0), labeled=labeled
        )
        return state, w

    losses = jnp.broadcast_to(jnp.asarray(losses, jnp.float32), (steps, t))
    state, _ = jax.jit(lambda: jax.lax.scan(step, balancer.init("abc"[:t], None), losses))()
    return np.asarray(state.weights)


def test_at_equal_rates_all_norms_become_equal():
    norms = np.array([1.0, 2.0, 4.0])
    w = learn(np.diag(norms), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(w * norms, (w * norms).mean(), rtol=0.03)
    np.testing.assert_allclose(w.sum(), 3, rtol=1e-5)


def test_a_task_that_lags_gets_the_longer_gradient():
    """Losses 1/4 and 1 of the initial: rates .4 and 1.6, and targets .4^1.5 and 1.6^1.5.

    These sum to more than T, so that the longer gradient stays below its target.
    """
    falling = np.ones((800, 2))
    falling[1:, 0] = 0.25
    w = learn(np.eye(2), falling)
    np.testing.assert_allclose(w, [0.4**1.5, 2 - 0.4**1.5], atol=0.01)


def test_losses_of_zero_have_the_mean_rate():
    """The first positive loss is the initial one; until then a task is neither fast nor slow."""
    w = learn(np.eye(3), [0.0, 1.0, 1.0], steps=50)
    np.testing.assert_allclose(w, 1, atol=0.05)
    late = np.ones((50, 3))
    late[:10, 0] = 0
    np.testing.assert_allclose(learn(np.eye(3), late, steps=50), 1, atol=0.05)


def test_patterns_name_the_layer_whose_norms_count():
    rows = {"trunk": jnp.diag(jnp.array([1.0, 9.0])), "last": jnp.diag(jnp.array([9.0, 1.0]))}
    pullback = pullback_from_jacobian(rows, {"trunk": True, "last": True})

    def first_step(wrt):
        balancer = balance.gradnorm(optimizer=optax.sgd(0.01), wrt=wrt)
        options = {"key": jax.random.key(0), "labeled": jnp.ones(2, bool)}
        state = balancer.init("ab", rows)
        update = jax.jit(lambda: balancer.update(jnp.ones(2), pullback, state, **options))
        gradient, _, state = update()
        np.testing.assert_allclose(gradient["trunk"], [1, 9])
        np.testing.assert_allclose(gradient["last"], [9, 1])
        return state

    down, up = first_step(("last",)).weights
    assert down < up
    up, down = first_step(("trunk",)).weights
    assert down < up
