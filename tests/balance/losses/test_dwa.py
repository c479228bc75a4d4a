"""Dynamic weight average against its formula on the means of whole periods."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian


def run(balancer, losses, labeled):
    """The weights of every step [k t]."""
    rows = {"p": jnp.eye(losses.shape[1])}
    tasks = [f"task{i}" for i in range(losses.shape[1])]

    def step(state, x):
        _, w, state = balancer.update(
            x[0],
            pullback_from_jacobian(rows, {"p": True}),
            state,
            key=jax.random.key(0),
            labeled=x[1],
        )
        return state, w

    state = balancer.init(tasks, None)
    return np.asarray(jax.lax.scan(step, state, (jnp.asarray(losses), jnp.asarray(labeled)))[1])


def test_weights_follow_the_last_two_periods():
    """Means over the labeled steps of a period; a task without any keeps its ratio."""
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(size=(30, 3))).astype(np.float32)
    labeled = rng.random((30, 3)) < 0.8
    labeled[:, 0] = True
    labeled[12:18, 1] = False  # all of two periods
    labeled[:3, 2] = False  # all of the first
    w = run(balance.dwa(temperature=1.5, steps=3), np.where(labeled, losses, 0), labeled)
    means = [[] for _ in range(3)]
    for k in range(30):
        if k and k % 3 == 0:
            for t in range(3):
                period = labeled[k - 3 : k, t]
                if period.any():
                    means[t].append(losses[k - 3 : k, t][period].astype(np.float64).mean())
        ratio = np.array([m[-1] / m[-2] if len(m) > 1 else 1.0 for m in means])
        soft = np.exp(ratio / 1.5) * labeled[k]
        np.testing.assert_allclose(w[k], labeled[k].sum() * soft / soft.sum(), rtol=1e-5)
    assert (w[:6, 0] == w[:6, 0].round(5)).all() and np.ptp(w[6:, 0]) > 0.1


def test_losses_that_fall_alike_weigh_alike():
    fall = 0.5 ** np.arange(12)[:, None] * np.array([[1.0, 1000.0]])
    w = run(balance.dwa(steps=2), fall.astype(np.float32), np.ones((12, 2), bool))
    np.testing.assert_allclose(w, 1, rtol=1e-5)
