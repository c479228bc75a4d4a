"""GradDrop against the frequencies that its probabilities foretell."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import balance
from mmjax.balance.jacobian.graddrop import sum_one_sign
from mmjax.balance.pullback import pullback_from_jacobian


def test_every_entry_is_the_positive_or_the_negative_sum_as_often_as_the_purity_says():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 4, 6))  # 200 Jacobians of 4 tasks
    rows[:, :, 5] = np.abs(rows[:, :, 5])  # no conflict: kept for sure
    rows[:, :, 4] = 0
    draws = 400
    draw = rng.random((draws, 200, 6)).astype(np.float32)
    of_all = jax.vmap(jax.vmap(sum_one_sign), (None, 0))
    got = np.asarray(jax.jit(of_all)(jnp.asarray(rows, jnp.float32), draw))
    positive, negative = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    is_positive = np.abs(got - positive) < 1e-5
    assert (is_positive | (np.abs(got - negative) < 1e-5)).all()
    assert is_positive[..., 4:].all()
    total = np.abs(rows).sum(1)
    purity = 0.5 * (1 + rows.sum(1) / np.where(total > 0, total, 1))[:, :4]
    share_positive = is_positive[..., :4].mean(0)
    mixed = (purity > 0.02) & (purity < 0.98)
    deviation = ((share_positive - purity) / np.sqrt(purity * (1 - purity) / draws + 1e-9))[mixed]
    assert np.abs(deviation).max() < 5
    np.testing.assert_allclose(deviation.std(), 1, atol=0.1)


def test_leaves_and_steps_are_drawn_apart(run, problems):
    drawn = problems(n=40)
    got = run(balance.graddrop(), [drawn, drawn])
    rows = drawn.rows.astype(np.float64)
    positive, negative = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    size = np.abs(rows).sum(1)
    for k in range(2):
        of_positive = np.abs(got.shared[:, k] - positive) <= 1e-5 * size
        assert (of_positive | (np.abs(got.shared[:, k] - negative) <= 1e-5 * size)).all()
    np.testing.assert_array_equal(got.task_specific[:, 0], drawn.labeled)
    np.testing.assert_array_equal(got.weights[:, 0], drawn.labeled)
    assert (got.shared[:, 0] != got.shared[:, 1]).any()
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(2, 100)), jnp.float32)
    pullback = pullback_from_jacobian({"a": rows, "b": rows}, {"a": True, "b": True})
    options = {"key": jax.random.key(0), "labeled": jnp.ones(2, bool)}
    update = balance.graddrop().update
    direction = jax.jit(lambda: update(jnp.ones(2), pullback, (), **options)[0])()
    assert (direction["a"] != direction["b"]).any()
