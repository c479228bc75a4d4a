"""AMCo: which features are dropped, and of which modality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.balance import equal
from mmjax.balance.pullback import ModalityScores, pullback_from_jacobian
from mmjax.encoders import Features
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.layers.feature_dropout import drop_features
from mmjax.modalities.imbalance import amco, opm
from mmjax.modalities.imbalance.modulation.amco import find_dependent_modalities
from mmjax.model import Model
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.95, 1.0])
def test_the_share_of_features_is_dropped_and_the_others_are_scaled(rate):
    values = RNG.normal(size=(3, 2, 10))
    keys = jax.random.split(jax.random.key(0), 3)
    found = drop_features(jnp.asarray(values, jnp.float32), jnp.full(3, rate), keys)
    scale = 1 / (1 - rate) if 1 - rate > 0.1 else 10
    for row, old in zip(np.asarray(found), values, strict=True):
        kept = (row != 0).any(axis=0)
        assert (~kept).sum() == int(rate * 10)
        np.testing.assert_allclose(row[:, kept], scale * old[:, kept], rtol=1e-5)


def make_scores(likelihoods, counts):
    likelihoods = jnp.asarray(likelihoods, jnp.float32)
    names = tuple("abc"[: len(likelihoods)])
    return ModalityScores(names, likelihoods, likelihoods, jnp.asarray(counts, jnp.float32))


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_dependence_is_the_share_of_the_scores(modalities):
    for _ in range(6):
        values = RNG.uniform(0.05, 1, (modalities, 2))
        counts = RNG.integers(0, 2, (modalities, 2))
        means = {m: values[m][counts[m] > 0].mean() for m in range(modalities) if counts[m].any()}
        total = sum(means.values())
        expected = [
            len(means) > 1 and m in means and means[m] / total > 0.4 for m in range(modalities)
        ]
        found = find_dependent_modalities(make_scores(values, counts), 0.4)
        assert found.tolist() == expected


def test_the_rate_rises_and_examples_with_one_modality_keep_their_features():
    balancer = amco(equal(), steps=4)
    state = balancer.init(("y",), {}, modalities=("a", "b"))
    present = {"a": jnp.array([True, True]), "b": jnp.array([True, False])}
    pullback = pullback_from_jacobian({"w": jnp.ones((1, 2))}, {"w": True})
    pullback = pullback._replace(scores=make_scores([[0.6], [0.3]], [[1], [1]]))
    for step in range(6):
        hidden = balancer.hide(state, present, key=jax.random.key(step), indices=jnp.arange(2))
        rate = np.sin(np.pi / 2 * min(step / 4, 1)) if step else 0
        np.testing.assert_allclose(hidden["a"].rates, [rate, 0], rtol=1e-6)
        np.testing.assert_array_equal(hidden["b"].rates, 0)
        np.testing.assert_array_equal(hidden["b"].shown, present["b"])
        options = {"key": jax.random.key(0), "labeled": jnp.ones(1, bool)}
        _, _, state = balancer.update(jnp.ones(1), pullback, state, **options)
    pullback = pullback._replace(scores=make_scores([[0.0], [0.3]], [[0], [1]]))
    _, _, state = balancer.update(jnp.ones(1), pullback, state, **options)
    assert state.dependent.tolist() == [True, False]  # without a score it stays what it was


def test_a_dropped_feature_has_no_gradient():
    """With features as tokens, the rows of the head's kernel show what the fusion saw."""
    model = Model({m: Features() for m in "ab"}, Concat(), {"y": Classification(2)})
    examples, everywhere = 8, np.ones(8, bool)
    batch = Batch(
        {m: jnp.asarray(RNG.normal(size=(examples, 6)), jnp.float32) for m in "ab"},
        dict.fromkeys("ab", everywhere),
        {},
        {"y": jnp.arange(examples) % 2},
        {"y": everywhere},
    )
    balancer, optimizer = amco(equal(), steps=2), optax.sgd(0.1)
    init = jax.jit(functools.partial(init_state, model, optimizer, balancer))
    state = init(batch, jax.random.key(0))
    dependent = jnp.array([True, False])
    state = state._replace(
        balancer_state=state.balancer_state._replace(step=jnp.ones((), int), dependent=dependent)
    )
    # Micro-batches drop the same features.
    step = jax.jit(make_train_step(model, optimizer, balancer, accumulate=2))
    new, _ = step(state, batch)
    changed = jax.tree.map(lambda a, b: np.asarray(a != b), state.params, new.params)
    rows = changed["heads_y"]["output"]["kernel"].any(axis=1)
    assert (~rows[:6]).sum() == int(np.sin(np.pi / 4) * 6) and rows[6:].all()


@pytest.mark.parametrize(
    "options, message",
    [({"steps": 0}, "steps is 0"), ({"steps": 1, "sigma": 1.0}, "sigma is 1.0")],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        amco(equal(), **options)


def test_two_ways_of_dropping_are_refused():
    with pytest.raises(ValueError, match=r"amco: the balancer drops modalities .* keep only one"):
        amco(opm(equal()), steps=1)
