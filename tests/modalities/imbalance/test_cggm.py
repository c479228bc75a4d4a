"""CGGM: factors and the loss of directions against slow float64 versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance.pullback import ModalityScores
from mmjax.heads import Classification
from mmjax.modalities.imbalance import GradientDirection, cggm
from mmjax.types import Batch, Intermediates, Tokens

RNG = np.random.default_rng(0)
PLAIN = {"train": True, "gather": lambda x: x}


def reference_shares(progress):
    """B_m of the modalities whose progress is known: {m: Δ_m}."""
    gains = {m: max(d, 0.0) for m, d in progress.items()}
    total = sum(gains.values())
    if len(gains) < 2:
        return dict.fromkeys(gains, 0.0)
    even = (len(gains) - 1) / len(gains)
    return {m: (total - d) / total if total > 0 else even for m, d in gains.items()}


def reference_factors(history, rho):
    """Factors of every step, in float64; a step is (likelihoods [m t], counts [m t])."""
    last, rows = {}, []
    for likelihoods, counts in history:
        now = {}
        for m, counted in enumerate(counts > 0):
            if counted.any():
                now[m] = likelihoods[m][counted].mean(), tuple(counted)
        progress = {m: now[m][0] - last[m][0] for m in now if m in last and last[m][1] == now[m][1]}
        shares = reference_shares(progress) if len(progress) > 1 else {}
        rows.append([rho * shares[m] if m in shares else 1.0 for m in range(len(counts))])
        last |= now
    return rows


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_factors_follow_the_progress_of_the_others(modalities):
    history = [
        (RNG.uniform(0.1, 0.9, (modalities, 3)), RNG.integers(0, 2, (modalities, 3)) * 2.0)
        for _ in range(4)
    ]
    history += [(x, np.ones((modalities, 3))) for x, _ in history]
    method, names = cggm(rho=1.2), tuple("abc"[:modalities])
    state, found = method.init(names), []
    for likelihoods, counts in history:
        arrays = (jnp.asarray(x, jnp.float32) for x in (likelihoods, -np.log(likelihoods), counts))
        factors, state = method.choose_factors(ModalityScores(names, *arrays), state)
        found.append(factors)
    np.testing.assert_allclose(found, reference_factors(history, 1.2), rtol=1e-4, atol=1e-6)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference_loss(whole, alone, before, target, counted, strength):
    """The loss in float64; `alone` and `before` are the logits of this and the step before."""
    y = np.eye(whole.shape[1])[target]
    progress, cosines = {}, {}
    for m in alone:
        rows, hit = counted[m], target[counted[m]]
        now, then = (softmax(x[m][rows])[range(len(hit)), hit].mean() for x in (alone, before))
        progress[m] = now - then
        g, h = ((softmax(x[rows]) - y[rows]).ravel() for x in (whole, alone[m]))
        cosines[m] = g @ h / (np.linalg.norm(g) * np.linalg.norm(h))
    shares = reference_shares(progress)
    return strength / len(alone) * sum(shares[m] * (1 - cosines[m]) for m in alone)


def test_the_gradient_turns_to_the_modalities_that_lag():
    target, examples = RNG.integers(0, 3, 8), 8
    whole = RNG.normal(size=(examples, 3))
    before, alone = ({m: RNG.normal(size=(examples, 3)) for m in "abc"} for _ in range(2))
    present = {m: RNG.random(examples) < 0.8 for m in "abc"}
    labeled = np.arange(examples) % 4 > 0
    counted = {m: present[m] & labeled for m in "abc"}
    objective = GradientDirection("y", Classification(3), strength=0.3)
    batch = Batch({}, present, {}, {"y": jnp.asarray(target)}, {"y": jnp.asarray(labeled)})
    tokens = {
        m: Tokens(jnp.ones((examples, 1, 2)), jnp.asarray(present[m])[:, None]) for m in "abc"
    }

    def run(whole, variables, logits):
        subsets = {m: {"y": x} for m, x in logits.items()}
        seen = Intermediates(tokens, None, {}, {}, subsets)
        predictions, options = {"y": whole}, PLAIN | {"mutable": ["direction"]}
        (total, count), new = objective.apply(variables, seen, predictions, batch, **options)
        return total, (count, new)

    differentiate = jax.jit(jax.value_and_grad(run, has_aux=True))
    f32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (whole, before, alone))
    variables = {"direction": {"scores": jnp.zeros(3), "known": jnp.zeros(3, bool)}}
    (total, (count, variables)), _ = differentiate(f32[0], variables, f32[1])
    assert (total, count) == (0, 0)  # no progress is known in the first step
    (total, (count, _)), gradient = differentiate(f32[0], variables, f32[2])
    expected = reference_loss(whole, alone, before, target, counted, 0.3)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert count == 1
    for index in [(1, 0), (2, 1), (4, 2)]:
        step = np.zeros_like(whole)
        step[index] = 1e-5
        ends = (
            reference_loss(whole + sign * step, alone, before, target, counted, 0.3)
            for sign in (1, -1)
        )
        slope = (next(ends) - next(ends)) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-3, atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"rho is 0\.0"):
        cggm(rho=0.0)
