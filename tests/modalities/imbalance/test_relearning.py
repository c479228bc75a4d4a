"""Re-learning: clusters against scikit-learn and float64, and the reset of encoders in a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.preprocessing import MinMaxScaler

from mmjax import balance
from mmjax.heads import Classification
from mmjax.modalities.imbalance import (
    ClusterImpurity,
    UnimodalLoss,
    gradient_blend,
    modulated,
    ogm_ge,
    relearn,
)
from mmjax.modalities.imbalance.objectives.cluster_impurity import cluster_vectors, compute_purity
from mmjax.train.loop import fit

RNG = np.random.default_rng(0)


def reference_purity(clusters, labels):
    """The share of examples that are of their cluster's most common class."""
    common = [np.bincount(labels[clusters == c]).max() for c in np.unique(clusters)]
    return sum(common) / len(labels)


def reference_clusters(x, count, iterations):
    """The same K-means in float64, one center after the other."""
    x = MinMaxScaler((-1, 1)).fit_transform(x)
    centers = [x[np.argmax(((x - x.mean(axis=0)) ** 2).sum(axis=1))]]
    while len(centers) < count:
        distances = [((x - c) ** 2).sum(axis=1) for c in centers]
        centers.append(x[np.argmax(np.min(distances, axis=0))])
    for step in range(iterations + 1):
        clusters = np.argmin([((x - c) ** 2).sum(axis=1) for c in centers], axis=0)
        if step == iterations:
            return clusters
        for k in np.unique(clusters):
            centers[k] = x[clusters == k].mean(axis=0)


def make_blobs(spread, examples=90):
    labels = np.arange(examples) % 3
    x = 4 * np.eye(3, 5)[labels] + spread * RNG.normal(size=(examples, 5))
    return np.concatenate([x, np.full((examples, 1), 7.0)], axis=1), labels


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_clusters_and_their_purity(spread):
    x, labels = make_blobs(spread)
    counted = RNG.random(len(x)) < 0.8
    garbage = np.where(counted[:, None], x, 1e6)
    found = cluster_vectors(jnp.asarray(garbage, jnp.float32), jnp.asarray(counted), 3, 15)
    expected = reference_clusters(x[counted], 3, 15)
    np.testing.assert_array_equal(found[counted], expected)
    purity = compute_purity(found, jnp.asarray(labels), jnp.asarray(counted), 3)
    np.testing.assert_allclose(purity, reference_purity(expected, labels[counted]), rtol=1e-6)
    kmeans = KMeans(3, n_init=10, random_state=0)
    best = kmeans.fit_predict(MinMaxScaler((-1, 1)).fit_transform(x[counted]))
    difference = abs(purity - reference_purity(best, labels[counted]))
    assert difference < (1e-6 if spread < 1 else 0.1)


def test_the_order_of_the_examples_does_not_matter():
    x, labels = make_blobs(1.5)
    order, everywhere = RNG.permutation(len(x)), jnp.ones(len(x), bool)
    purities = []
    for rows in (np.arange(len(x)), order):
        clusters = cluster_vectors(jnp.asarray(x[rows], jnp.float32), everywhere, 3)
        purities.append(compute_purity(clusters, jnp.asarray(labels[rows]), everywhere, 3))
    np.testing.assert_allclose(*purities, rtol=1e-6)


def test_clusters_of_nothing_are_pure():
    nobody = jnp.zeros(4, bool)
    clusters = cluster_vectors(jnp.full((4, 2), jnp.nan), nobody, 3)
    assert compute_purity(clusters, jnp.zeros(4, int), nobody, 3) == 1


def test_encoders_go_back_as_far_as_their_purities_differ():
    tasks = ("y", "first", "second", "other")
    impurities = {"first": "a", "second": "a", "other": "b"}
    inner = gradient_blend({"other": "y"})
    balancer = relearn(inner, impurities, strength=2.0, every=2, times=1)
    initial = {"encoders_a": {"w": jnp.zeros(2)}, "own_encoders_b": {"w": jnp.zeros(2)}}
    params = jax.tree.map(lambda x: x + 4, initial | {"fusion": {"w": jnp.zeros(2)}})
    state = balancer.init(tasks, initial, params=initial | {"fusion": {"w": jnp.zeros(2)}})
    train = jnp.array([1.0, 0.1, 0.2, 0.3])
    validation = jnp.array([2.0, 0.4, jnp.nan, 0.2])
    for count in (1, 2, 3, 4):
        state = balancer.validate(state, train, validation)
        gaps = {"a": 0.3, "b": 0.1} if count == 2 else {"a": 0.0, "b": 0.0}
        found = balancer.revise(state, params)
        for part, m in (("encoders_a", "a"), ("own_encoders_b", "b")):
            expected = 4 * (1 - np.tanh(2 * gaps[m]))
            np.testing.assert_allclose(found[part]["w"], expected, rtol=1e-5)
        np.testing.assert_array_equal(found["fusion"]["w"], 4.0)
    assert state.balancer.validations == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"impurities": {}}, "empty"),
        ({"every": 0}, "every is 0"),
        ({"times": -1}, "times -1"),
        ({"strength": -1.0}, "strength is -1.0"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        relearn(balance.equal(), **({"impurities": {"i": "a"}} | options))


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="names the loss 'i'"):
        relearn(balance.equal(), {"i": "a"}).init(("y",), {}, params={})


@pytest.mark.slow
def test_a_run_resets_encoders_after_the_validation(toy, tmp_path):
    """As strong a reset as possible: the encoders are the initial ones, the rest is trained."""
    impurities = {f"impurity_{m}": m for m in ("vector", "sequence")}
    auxiliary = {name: ClusterImpurity(m, "kind", 4) for name, m in impurities.items()}
    auxiliary["only_vector"] = UnimodalLoss("vector", "kind", Classification(4))
    # Seen through a wrapper of the balancer, too.
    balancer = relearn(balance.equal(), impurities, strength=1e9, every=2)
    experiment = toy.experiment(
        model=toy.model().clone(auxiliary=auxiliary),
        balancer=modulated(balancer, ogm_ge()),
        epochs=2,
    )
    result = fit(experiment, tmp_path, seeds=(0, 1), devices=jax.devices()[:1])
    state = jax.device_get(result.state.train)
    assert (state.balancer_state.balancer.strengths == 1).all()
    first = state.balancer_state.balancer.initial
    for part in ("encoders_vector", "encoders_sequence"):
        for a, b in zip(
            jax.tree.leaves(state.params[part]), jax.tree.leaves(first[part]), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-6)
        best = jax.device_get(result.state.best_params[part])
        assert any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(best), jax.tree.leaves(first[part]), strict=True)
        )
    assert np.isfinite(result.test[0]["kind/accuracy"])
