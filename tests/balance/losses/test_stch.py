"""The code's smooth Tchebycheff scalarization: warm-up, nadir, and the weights after."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import balance
from mmjax.balance.pullback import pullback_from_jacobian


def test_log_stch_warms_up_and_then_weighs_the_fall_since():
    rng = np.random.default_rng(0)
    losses = np.exp(rng.normal(size=(12, 3)))
    labeled = rng.random((12, 3)) < 0.7
    labeled[:, 0], labeled[:5, 2] = True, False  # task 2 has no label in the warm-up
    balancer, mu = balance.log_stch(mu=0.5, warmup=5), 0.5
    pullback = pullback_from_jacobian({"p": jnp.eye(3)}, {"p": True})

    def step(state, x):
        _, w, state = balancer.update(x[0], pullback, state, key=jax.random.key(0), labeled=x[1])
        return state, w

    known = jnp.asarray(np.where(labeled, losses, 0), jnp.float32)
    _, w = jax.lax.scan(step, balancer.init("abc", None), (known, jnp.asarray(labeled)))
    count = labeled[:5].sum(0)
    nadir = np.where(labeled[:5], losses[:5], 0).sum(0) / np.maximum(count, 1)
    for k in range(12):
        if k < 5:
            expected = labeled[k] / losses[k]
        else:
            relative = np.where(count > 0, losses[k] / np.where(count > 0, nadir, 1), 1)
            powers = relative ** (1 / mu) * labeled[k]
            expected = labeled[k].sum() * powers / powers.sum() / losses[k]
        np.testing.assert_allclose(w[k], expected, rtol=1e-4)
