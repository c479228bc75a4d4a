"""InfoReg: the pull of encoders to the start of their period, step by step in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance import equal
from mmjax.balance.pullback import ModalityScores, pullback_from_jacobian
from mmjax.modalities.imbalance import agm, info_reg, modulated

RNG = np.random.default_rng(0)
STEPS, WINDOW, BETA, THRESHOLD = 2, 3, 0.7, 0.3


def reference_gradients(gradients, params, scores):
    """Gradients of every step; each argument is a list of {modality: value}."""
    start, total, traces, rows = dict(params[0]), dict.fromkeys("abc", 0.0), [], []
    for step, (g, p, s) in enumerate(zip(gradients, params, scores, strict=True)):
        if step and step % STEPS == 0:
            traces.append({m: x / STEPS for m, x in total.items()})
            start, total = dict(p), dict.fromkeys("abc", 0.0)
        row = {}
        for m in "abc":
            known = [f[m] for f in traces]
            now, before = sum(known[-WINDOW:]), sum(known[:-1][-WINDOW:])
            growing = now == 0 or (now - before) / now > THRESHOLD
            others = [s[k] for k in s if k != m]
            gap = s[m] - sum(others) / len(others) if m in s and others else 0
            alpha = BETA * np.exp(np.tanh(gap)) if gap > 0 and growing else 0
            row[m] = g[m] + alpha * (p[m] - start[m])
            total[m] += (g[m] ** 2).sum()
        rows.append(row)
    return rows


def test_encoders_ahead_are_drawn_back_while_they_learn_fast():
    count = 12
    gradients = [{m: RNG.normal(size=4) * 0.8**k for m in "abc"} for k in range(count)]
    params = [{m: RNG.normal(size=4) for m in "abc"} for _ in range(count)]
    # c has no score in some steps.
    scores = [{m: RNG.uniform(0.1, 0.9) for m in ("abc", "ab")[k % 3 == 2]} for k in range(count)]
    balancer = info_reg(equal(), steps=STEPS, beta=BETA, threshold=THRESHOLD, window=WINDOW)

    def tree(values):
        parts = {f"encoders_{m}": {"w": jnp.asarray(x, jnp.float32)} for m, x in values.items()}
        return parts | {"fusion": {"w": jnp.ones(2)}}

    modalities = ("a", "b", "c")
    state = balancer.init(("y",), tree(params[0]), modalities=modalities, params=tree(params[0]))
    shared = jax.tree.map(lambda _: True, tree(params[0]))
    expected = reference_gradients(gradients, params, scores)
    regulated = 0
    for g, p, s, row in zip(gradients, params, scores, expected, strict=True):
        likelihoods = jnp.array([[s.get(m, 0.0)] for m in modalities])
        counts = jnp.array([[float(m in s)] for m in modalities])
        pullback = pullback_from_jacobian(jax.tree.map(lambda x: x[None], tree(g)), shared)
        pullback = pullback._replace(
            scores=ModalityScores(modalities, likelihoods, likelihoods, counts), params=tree(p)
        )
        found, _, state = balancer.update(
            jnp.ones(1), pullback, state, key=jax.random.key(0), labeled=jnp.ones(1, bool)
        )
        for m in "abc":
            np.testing.assert_allclose(found[f"encoders_{m}"]["w"], row[m], rtol=1e-4, atol=1e-5)
            regulated += (row[m] != g[m]).any()
        np.testing.assert_array_equal(found["fusion"]["w"], 1.0)
    assert 3 <= regulated < count  # the test has steps of both kinds


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1, "window": 0}, "window 0"),
        ({"steps": 1, "beta": -1.0}, "beta is -1.0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        info_reg(equal(), **options)


def test_two_kinds_of_scores_are_refused():
    with pytest.raises(ValueError, match="same scores"):
        info_reg(modulated(equal(), agm()), steps=1)
