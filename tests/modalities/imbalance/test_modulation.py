"""The scores of the modalities, and the factors and gradients that follow from them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.balance import equal
from mmjax.balance.pullback import ModalityScores
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat, Late
from mmjax.heads import Classification
from mmjax.modalities.imbalance import agm, modulated, ogm_ge, opm
from mmjax.modalities.imbalance.modulation.modulated import scale_encoder_gradients
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.train.steps.modality_scores import compute_shapley_responses
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch


def make_scores(likelihoods, losses=None, counts=None):
    likelihoods = np.asarray(likelihoods, np.float32)
    counts = np.ones_like(likelihoods) if counts is None else np.asarray(counts, np.float32)
    losses = -np.log(likelihoods) if losses is None else np.asarray(losses, np.float32)
    names = tuple("abcdef"[: len(likelihoods)])
    return ModalityScores(names, *map(jnp.asarray, (likelihoods, losses, counts)))


def reference_ogm(values, counts, alpha, offset):
    """The rule in float64, one modality after the other."""
    scores = {}
    for m, (row, count) in enumerate(zip(values, counts, strict=True)):
        known = [v for v, n in zip(row, count, strict=True) if n > 0]
        if known:
            scores[m] = sum(known) / len(known)
    factors = []
    for m in range(len(values)):
        others = [s for other, s in scores.items() if other != m]
        if m not in scores or not others:
            factors.append(1.0)
            continue
        ratio = scores[m] / (sum(others) / len(others))
        factors.append(1 - np.tanh(alpha * (ratio - offset)) if ratio > 1 else 1.0)
    return factors


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_ogm_is_the_rule_of_the_paper(modalities, offset):
    rng = np.random.default_rng(modalities)
    for _ in range(5):
        values = rng.uniform(0.05, 1, (modalities, 4))
        counts = rng.integers(0, 2, (modalities, 4)) * 3.0
        counts[0, 0] = 1.0
        factors, _ = ogm_ge(0.7, offset=offset).choose_factors(
            make_scores(values, counts=counts), ()
        )
        expected = reference_ogm(values, counts, 0.7, offset)
        np.testing.assert_allclose(factors, expected, rtol=1e-5, atol=1e-6)


def reference_agm(history, alpha, limit):
    """Factors of every step, in float64: losses [m] per step, None for a modality without any."""
    count, sums, seen, rows = len(history[0]), {}, {}, []

    def advantage(scores):
        mean = sum(scores.values()) / len(scores)
        share = len(scores) / (len(scores) - 1) if len(scores) > 1 else 0
        return {m: np.exp(share * (s - mean)) for m, s in scores.items()}

    for losses in history:
        now = {m: -x for m, x in enumerate(losses) if x is not None}
        usual = advantage({m: sums[m] / seen[m] for m in now if m in sums}) if sums else {}
        r = advantage(now)
        row = [1.0] * count
        for m in now if len(now) > 1 else ():
            row[m] = np.exp(alpha * min(usual.get(m, 1.0) - r[m], limit))
        rows.append(row)
        for m, s in now.items():
            sums[m], seen[m] = sums.get(m, 0) + s, seen.get(m, 0) + 1
    return rows


def test_agm_is_the_rule_of_the_paper():
    rng = np.random.default_rng(0)
    history = [list(rng.uniform(0.1, 2, 3)) for _ in range(4)]
    history[2][1] = None  # no example has it
    method = agm(alpha=0.8)
    state, factors = method.init(("a", "b", "c")), []
    for losses in history:
        counts = [[0.0 if x is None else 2.0] for x in losses]
        values = [[0.0 if x is None else x] for x in losses]
        scores = make_scores(np.ones((3, 1)), values, counts)
        row, state = method.choose_factors(scores, state)
        factors.append(row)
    np.testing.assert_allclose(factors, reference_agm(history, 0.8, 7.0), rtol=1e-4)


def test_the_modality_that_is_ahead_is_slowed_down():
    scores = make_scores([[0.9], [0.3]])
    for method in (ogm_ge(), agm()):
        factors, _ = method.choose_factors(scores, method.init(("a", "b")))
        assert factors[0] < factors[1]


def test_shapley_responses_are_the_definition():
    """Averages over all orders in which the modalities may arrive."""
    import itertools

    rng, names = np.random.default_rng(0), ("a", "b", "c")
    values = {
        "+".join(s) or "none": {"y": jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)}
        for n in range(4)
        for s in itertools.combinations(names, n)
    }
    found = compute_shapley_responses(values, names)
    for m in names:
        gains = []
        for order in itertools.permutations(names):
            before = sorted(order[: order.index(m)])
            gain = (
                values["+".join(sorted([*before, m]))]["y"]
                - (values["+".join(before) or "none"]["y"])
            )
            gains.append(np.asarray(gain, np.float64))
        expected = np.asarray(values["none"]["y"]) + np.mean(gains, axis=0)
        np.testing.assert_allclose(found[m]["y"], expected, rtol=1e-5, atol=1e-6)


def make_batch(examples=12):
    rng = np.random.default_rng(3)
    x = {m: rng.normal(size=(examples, 4)).astype(np.float32) for m in ("a", "b")}
    present = {"a": rng.random(examples) < 0.7, "b": np.ones(examples, bool)}
    targets = {"y": rng.integers(0, 3, examples).astype(np.int32)}
    labeled = {"y": rng.random(examples) < 0.8}
    return jax.tree.map(jnp.asarray, Batch(x, present, {}, targets, labeled))


def make_model(fusion, sharing=None):
    return Model(
        {"a": MLPEncoder((5,)), "b": MLPEncoder((5,))},
        fusion,
        {"y": Classification(3)},
        sharing or HardSharing(),
    )


def take_step(model, balancer, batch, rate=1.0):
    optimizer = optax.sgd(rate)
    state = init_state(model, optimizer, balancer, batch, jax.random.key(0))
    new, metrics = jax.jit(make_train_step(model, optimizer, balancer))(state, batch)
    gradient = jax.tree.map(lambda a, b: (a - b) / rate, state.params, new.params)
    return state, new, gradient, metrics


def test_the_scores_of_concat_are_those_of_the_paper():
    """W_m h_m + b, the paper's unimodal logits, over the labeled examples that have m."""
    model, batch = make_model(Concat()), make_batch()
    state, _, _, metrics = take_step(model, modulated(equal(), ogm_ge(noise=False)), batch)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params)
    tokens = model.apply(
        {"params": state.params}, *batch[:3], train=False, method="represent_and_record"
    )[1][0].tokens
    kernel, bias = params["heads_y"]["output"]["kernel"], params["heads_y"]["output"]["bias"]
    for i, m in enumerate(("a", "b")):
        h = np.asarray(tokens[m].values[:, 0], np.float64)
        logits = h @ kernel[5 * i : 5 * (i + 1)] + bias
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        counts = np.asarray(batch.present[m] & batch.labeled["y"])
        truth = p[np.arange(len(p)), np.asarray(batch.targets["y"])][counts]
        total, count = metrics[f"score/{m}"]
        np.testing.assert_allclose(total / count, truth.mean(), rtol=1e-5)
        assert count == counts.sum()


@pytest.mark.parametrize("fusion", [Concat(), pytest.param(Late(4), marks=pytest.mark.slow)])
def test_modulation_scales_the_encoders_and_nothing_else(fusion):
    model, batch = make_model(fusion), make_batch()
    _, _, plain, _ = take_step(model, equal(), batch)
    balancer = modulated(equal(), ogm_ge(alpha=2.0, noise=False))
    _, new, scaled, _ = take_step(model, balancer, batch)
    factors = dict(zip(("a", "b"), new.balancer_state.factors, strict=True))
    assert sorted(f == 1 for f in factors.values()) == [False, True]
    for part in plain:
        factor = next((f for m, f in factors.items() if part == f"encoders_{m}"), 1.0)
        for a, b in zip(jax.tree.leaves(scaled[part]), jax.tree.leaves(plain[part]), strict=True):
            np.testing.assert_allclose(a, factor * b, rtol=1e-4, atol=1e-6)


def test_noise_has_the_deviation_of_the_gradient():
    g = 3.0 * jax.random.normal(jax.random.key(1), (400, 50))
    gradient = {"encoders_a": {"w": g}, "heads_y": {"w": g}}
    factors = {"a": jnp.array(0.25)}
    noisy = scale_encoder_gradients(gradient, factors, noise=jnp.array(1.0), key=jax.random.key(0))
    added = np.asarray(noisy["encoders_a"]["w"] - 0.25 * g)
    # 20,000 draws: the standard error of the deviation is 1 in 200, of the mean 3 / 141.
    assert abs(added.std() / float(jnp.std(g)) - 1) < 0.025
    assert abs(added.mean()) < 0.1
    np.testing.assert_array_equal(noisy["heads_y"]["w"], g)


def test_opm_drops_the_modality_that_is_ahead():
    balancer = opm(equal(), base=0.5, alpha=0.5, chance=1.0)
    state = balancer.init(("y",), {}, modalities=("a", "b"))
    present = {"a": jnp.ones(4000, bool), "b": jnp.arange(4000) % 4 > 0}
    state = state._replace(rates=jnp.array([0.6, 0.0]))
    visible = balancer.hide(state, present, key=jax.random.key(0), indices=jnp.arange(4000))
    np.testing.assert_array_equal(visible["b"], present["b"])
    has_both = np.asarray(present["b"])
    # The last modality of an example stays; of 3000 others 0.6 go, +- 5 standard errors.
    assert np.asarray(visible["a"])[~has_both].all()
    assert abs(1 - np.asarray(visible["a"])[has_both].mean() - 0.6) < 0.045


def test_opm_sets_the_rates_of_the_next_step():
    model, batch = make_model(Concat()), make_batch()
    _, new, _, metrics = take_step(model, opm(equal(), base=0.4, alpha=0.5), batch)
    scores = {m: float(metrics[f"score/{m}"][0] / metrics[f"score/{m}"][1]) for m in ("a", "b")}
    for i, m in enumerate(("a", "b")):
        ratio = scores[m] / scores["b" if m == "a" else "a"]
        rate = 0.4 * (1 + 0.5 * np.tanh(ratio - 1)) if ratio > 1 else 0.0
        np.testing.assert_allclose(new.balancer_state.rates[i], rate, rtol=1e-5)
