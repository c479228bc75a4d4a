"""Formulas of the objectives and balancers against slow float64 versions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance.pullback import ModalityScores, pullback_from_jacobian
from mmjax.modalities.imbalance import (
    ConfidenceOrder,
    ModalityValuation,
    PrototypeRebalance,
    average_by_entropy,
    compute_blend_weights,
    gradient_blend,
    mla,
    mmpareto,
    reconboost,
)
from mmjax.modalities.imbalance.balancers.mmpareto import combine_two_gradients
from mmjax.modalities.imbalance.objectives.residual_boosting import residual_cross_entropy
from mmjax.types import Batch, Intermediates, Tokens

RNG = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference_pareto(g, u, gamma):
    """The paper's rule; the min-norm point is searched on a grid."""
    if g @ u >= 0:
        h = g + u
    else:
        shares = np.linspace(0, 1, 100_001)[:, None]
        points = shares * g + (1 - shares) * u
        h = 2 * points[np.argmin((points**2).sum(axis=1))]
    length = np.linalg.norm(h)
    stretch = max(np.linalg.norm(g + u) / length, 1) if length > 0 else 1
    return gamma * stretch * h


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_mmpareto_combines_gradients_as_the_paper(scale):
    for _ in range(4):
        g, u = RNG.normal(size=3), scale * RNG.normal(size=3)
        rows = np.stack([g, u])
        w = np.asarray(combine_two_gradients(jnp.asarray(rows @ rows.T, jnp.float32), 1.5))
        expected = reference_pareto(g, u, 1.5)
        np.testing.assert_allclose(w @ rows, expected, atol=2e-4 * np.abs(expected).max())


def test_mmpareto_combines_each_encoder_by_itself():
    rows = {
        "encoders_a": RNG.normal(size=(3, 4)),
        "encoders_b": RNG.normal(size=(3, 4)),
        "fusion": RNG.normal(size=(3, 2)),
    }
    # Losses: digit, only_a, only_b; a unimodal loss has no gradient at the other encoder.
    rows["encoders_a"][2] = rows["encoders_b"][1] = 0
    tree = {k: {"w": jnp.asarray(v, jnp.float32)} for k, v in rows.items()}
    balancer = mmpareto({"only_a": "a", "only_b": "b"})
    state = balancer.init(("digit", "only_a", "only_b"), tree)
    pullback = pullback_from_jacobian(tree, jax.tree.map(lambda x: True, tree))
    labeled = jnp.ones(3, bool)
    found, _, _ = balancer.update(
        jnp.ones(3), pullback, state, key=jax.random.key(0), labeled=labeled
    )
    for i, m in enumerate(("a", "b")):
        expected = reference_pareto(rows[f"encoders_{m}"][0], rows[f"encoders_{m}"][1 + i], 1.5)
        np.testing.assert_allclose(found[f"encoders_{m}"]["w"], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["fusion"]["w"], rows["fusion"].sum(0), rtol=1e-5)


def test_blend_weights_are_those_of_the_paper():
    for _ in range(3):
        train, validation = RNG.uniform(0.5, 3, (2, 2, 4))
        gain = np.maximum(validation[0] - validation[1], 0)
        gap = (validation[1] - train[1]) - (validation[0] - train[0])
        expected = gain / gap**2 / (gain / gap**2).sum() if gain.any() else np.full(4, 0.25)
        found = compute_blend_weights(*jnp.asarray([train, validation], jnp.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_blending_weighs_each_tasks_losses_after_the_second_validation():
    balancer = gradient_blend({"only_a": "digit", "only_b": "digit"})
    state = balancer.init(("digit", "rate", "only_a", "only_b"), {})
    train, validation = jnp.array([[3.0, 9, 3, 3], [1, 9, 1.5, 1]]), jnp.ones((2, 4)) * 3
    validation = validation.at[1].set(jnp.array([2.0, 9, 2, 4]))  # the last does not generalize
    state = balancer.validate(state, train[0], validation[0])
    np.testing.assert_allclose(state.weights, [1 / 3, 1, 1 / 3, 1 / 3], rtol=1e-6)
    state = balancer.validate(state, train[1], validation[1])
    np.testing.assert_allclose(state.weights, [0.2, 1, 0.8, 0], rtol=1e-5)
    unlabeled = train[1].at[0].set(jnp.nan)
    state = balancer.validate(state, unlabeled, validation[1])
    assert np.isfinite(np.asarray(state.weights)).all() and state.weights[0] == 0


def test_residual_boosting_is_its_definition():
    for target in range(3):
        p, q = softmax(RNG.normal(size=(2, 3)))
        logits, others = np.log(p), np.log(q)
        y = np.eye(3)[target]
        expected = -((y - 0.3 * q) * np.log(p)).sum() + 0.2 * (q * np.log(q / p)).sum()
        found = residual_cross_entropy(
            *jnp.asarray([logits, others], jnp.float32), jnp.array(target), 0.3, 0.2
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_modalities_take_turns():
    balancer = reconboost({"boost_a": "a", "boost_b": "b"}, steps=2, rectify=1)
    state = balancer.init(("boost_a", "boost_b", "digit"), {})
    tree = {"w": jnp.eye(3)}
    pullback, turns = pullback_from_jacobian(tree, {"w": True}), []
    for _ in range(7):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(3, bool)}
        _, weights, state = balancer.update(jnp.ones(3), pullback, state, **options)
        turns.append("abd"[int(weights.argmax())])
        assert weights.sum() == 1
    assert "".join(turns) == "aadbbda"


def test_mla_moves_the_head_across_the_input_of_the_modality_before():
    balancer = mla({"only_a": "a", "only_b": "b"}, ridge=0.5)
    state = balancer.init(("digit", "only_a", "only_b"), {}, modalities=("a", "b"))
    kernels = RNG.normal(size=(3, 4, 2))
    tree = {"heads_digit": {"output": {"kernel": jnp.asarray(kernels, jnp.float32)}}}
    inputs = RNG.normal(size=(2, 4))
    none = jnp.zeros((2, 1))
    scores = ModalityScores(
        ("a", "b"), none, none, none, lambda: {"digit": jnp.asarray(inputs, jnp.float32)}
    )
    pullback = pullback_from_jacobian(tree, {"heads_digit": {"output": {"kernel": False}}})
    pullback = pullback._replace(scores=scores)
    for turn in range(3):
        options = {"key": jax.random.key(0), "labeled": jnp.ones(3, bool)}
        gradient, _, state = balancer.update(jnp.ones(3), pullback, state, **options)
        r = inputs[(turn + 1) % 2]
        projection = np.eye(4) - np.outer(r, r) / (0.5 + r @ r)
        np.testing.assert_allclose(
            gradient["heads_digit"]["output"]["kernel"],
            projection @ kernels[1 + turn % 2],
            rtol=1e-4,
            atol=1e-5,
        )


def test_entropy_weighs_the_modalities_that_an_example_has():
    logits = RNG.normal(size=(3, 5, 4)) * 3
    present = np.array([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 1, 0, 0, 0]], bool)
    p = softmax(logits)
    entropy = -(p * np.log(p)).sum(axis=-1)
    expected = []
    for b in range(5):
        w = np.exp(-entropy[:, b]) * present[:, b]
        expected.append((w / w.sum()) @ p[:, b])
    found = average_by_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(present))
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-4, atol=1e-6)


def make_seen(vectors, present, subsets):
    tokens = {m: Tokens(x[:, None], present[m][:, None]) for m, x in vectors.items()}
    return Intermediates(tokens, None, {}, {}, subsets)


def test_confidence_may_not_rise_when_a_modality_is_removed():
    logits = {s: RNG.normal(size=(6, 3)) for s in ("all", "a", "b")}
    present = {"a": np.array([1, 1, 1, 1, 0, 0], bool), "b": np.array([1, 1, 1, 0, 1, 1], bool)}
    confidence = {s: softmax(x).max(axis=1) for s, x in logits.items()}
    both = present["a"] & present["b"]
    expected = sum(
        np.maximum(confidence[without] - confidence["all"], 0)[both].sum() for without in ("a", "b")
    )
    f32 = {s: jnp.asarray(x, jnp.float32) for s, x in logits.items()}
    seen = make_seen(
        {m: jnp.ones((6, 2)) for m in "ab"},
        jax.tree.map(jnp.asarray, present),
        {"a": {"y": f32["a"]}, "b": {"y": f32["b"]}},
    )
    total, count = ConfidenceOrder("y")(
        seen, {"y": f32["all"]}, Batch({}, {}, {}, {}, {}), train=True, gather=lambda x: x
    )
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == 2 * both.sum()


def test_prototypes_speed_up_the_slow_modality():
    """Two classes; the loss in float64, one example after the other."""
    y = np.array([0, 1, 0, 1, 1, 0])
    vectors = {"a": RNG.normal(size=(6, 2)) + 3 * y[:, None], "b": RNG.normal(size=(6, 2))}
    present = {m: np.ones(6, bool) for m in vectors}
    labeled = np.array([1, 1, 1, 1, 1, 0], bool)
    losses, scores, entropies = {}, {}, {}
    for m, x in vectors.items():
        means = np.stack([x[labeled & (y == c)].mean(axis=0) for c in (0, 1)])
        rows = [softmax(-np.linalg.norm(means - z, axis=1)) for z in x[labeled]]
        truth = np.array([row[c] for row, c in zip(rows, y[labeled], strict=True)])
        losses[m], scores[m] = -np.log(truth).mean(), truth.mean()
        entropies[m] = -np.mean([(row * np.log(row)).sum() for row in rows])
    lead = scores["a"] / scores["b"] - 1
    assert 0 < lead < 1
    expected = lead * losses["b"] - 0.1 * lead * entropies["a"]
    f32 = {m: jnp.asarray(x, jnp.float32) for m, x in vectors.items()}
    seen = make_seen(f32, jax.tree.map(jnp.asarray, present), {})
    batch = Batch({}, present, {}, {"y": jnp.asarray(y)}, {"y": jnp.asarray(labeled)})
    objective = PrototypeRebalance("y", 2, entropy_steps=1)
    options = {"train": True, "gather": lambda x: x}
    predictions = {"y": jnp.zeros((6, 2))}
    variables = objective.init(jax.random.key(0), seen, predictions, batch, **options)
    (total, count), _ = objective.apply(
        variables, seen, predictions, batch, **options, mutable=["prototypes"]
    )
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert count == 1


def test_an_example_trains_more_on_what_contributes_little():
    """Shapley values by the orders of an example's modalities, one example after the other."""
    logits = {s: RNG.normal(size=(12, 3)) for s in ("a", "b", "c", "a+b", "a+c", "b+c", "a+b+c")}
    target = RNG.integers(0, 3, 12)
    present = {m: RNG.random(12) < 0.7 for m in "abc"}
    present["a"][:] = True
    labeled = np.arange(12) % 4 > 0
    # As in a model, a modality that is missing changes no prediction.
    for s, x in logits.items():
        for i in range(12):
            x[i] = logits["+".join(m for m in s.split("+") if present[m][i]) or "a"][i]
    total, count = 0.0, 0
    for i in np.flatnonzero(labeled):
        names = [m for m in "abc" if present[m][i]]

        def value(subset, i=i):
            return len(subset) * (logits["+".join(sorted(subset))][i].argmax() == target[i])

        orders = list(itertools.permutations(names))
        for m in names:
            gains = []
            for order in orders:
                before = order[: order.index(m)]
                gains.append(value((*before, m)) - (value(before) if before else 0))
            log_p = np.log(softmax(logits[m][i]))
            total -= max(0, 1 - np.mean(gains)) * log_p[target[i]]
            count += 1
    f32 = {s: {"y": jnp.asarray(x, jnp.float32)} for s, x in logits.items()}
    everything = f32.pop("a+b+c")
    vectors = {m: jnp.ones((12, 2)) for m in "abc"}
    seen = make_seen(vectors, jax.tree.map(jnp.asarray, present), f32)
    batch = Batch({}, present, {}, {"y": jnp.asarray(target)}, {"y": jnp.asarray(labeled)})
    found = ModalityValuation("y")(seen, everything, batch, train=True, gather=lambda x: x)
    np.testing.assert_allclose(found, (total, count), rtol=1e-5)
