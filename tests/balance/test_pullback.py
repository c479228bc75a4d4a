"""The pullback against plain differentiation of the whole model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance.jacobian_rows import gramian, weighted_sum
from mmjax.balance.pullback import differentiate_losses
from mmjax.fusion import Concat, Late
from mmjax.parameters import (
    mark_shared_parameters,
    merge_params,
    partition_params,
    select_matching_params,
)
from mmjax.train.steps.forward import compute_features, compute_predictions, sum_losses
from tests.tolerance import bound_difference

OPTIONS = {"compute_dtype": "float32", "train": False}
TASKS = ("kind", "size")


def setting(toy, fusion):
    model, batch = toy.model(fusion), jax.tree.map(jnp.asarray, toy.batch(12, 0))
    params = model.init(jax.random.key(0), *batch[:3], train=False)["params"]
    shared = mark_shared_parameters(model, params)

    def head_losses(params, features):
        predictions, _ = compute_predictions(model, {"params": params}, features, **OPTIONS)
        return sum_losses(model, predictions, batch, TASKS), None

    def losses(params):
        features, _ = compute_features(model, {"params": params}, batch, **OPTIONS)
        return head_losses(params, features)[0]

    def pulled(params):
        return differentiate_losses(
            lambda p: compute_features(model, {"params": p}, batch, **OPTIONS),
            head_losses,
            params,
            tasks=TASKS,
            shared=shared,
        )[:2]

    return model, batch, params, shared, losses, pulled


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fusion",
    [Concat(), pytest.param(Late(4, learned=True), marks=pytest.mark.slow)],
    ids=["concat", "late"],
)
def test_every_way_to_a_gradient_is_the_gradient(toy, fusion):
    _, _, params, shared, losses, pulled = setting(toy, fusion)
    w = jnp.array([0.3, -2.0])

    @jax.jit
    def ours(params):
        values, pull = pulled(params)
        return values, pull(w), pull.shared(w), pull.task_specific(w), pull.jacobian()

    values, gradient, of_shared, of_own, jacobian = ours(params)
    rows = jax.jit(jax.jacrev(losses))(params)
    np.testing.assert_allclose(values, jax.jit(losses)(params), rtol=bound_difference(100))
    same(gradient, weighted_sum(rows, w))
    same(merge_params(of_shared, of_own), weighted_sum(rows, w))
    same(jacobian, partition_params(rows, shared)[0])
    assert jax.tree.leaves(of_own) and jax.tree.leaves(of_shared)


@pytest.mark.parametrize("fusion", [Concat(), Late(4)], ids=["concat", "late"])
def test_the_feature_gramian_is_that_of_gradients_at_the_features(toy, fusion):
    model, batch, params, _, _, pulled = setting(toy, fusion)
    gram = jax.jit(lambda p: pulled(p)[1].feature_gram())(params)
    features = compute_features(model, {"params": params}, batch, **OPTIONS)[0]["kind"]

    def losses(features):
        predictions, _ = compute_predictions(
            model, {"params": params}, dict.fromkeys(TASKS, features), **OPTIONS
        )
        return sum_losses(model, predictions, batch, TASKS)

    rows = jax.tree.leaves(jax.jacrev(losses)(features))
    flat = np.concatenate([np.asarray(r, np.float64).reshape(2, -1) for r in rows], axis=1)
    np.testing.assert_allclose(gram, flat @ flat.T, rtol=1e-4)


def test_features_that_differ_between_tasks_have_no_gramian():
    two = {"kind": jnp.ones((3, 2)), "size": jnp.zeros((3, 2))}
    _, pull, _ = differentiate_losses(
        lambda p: (jax.tree.map(lambda x: x * p["a"], two), None),
        lambda p, f: (jnp.stack([f[t].sum() for t in TASKS]), None),
        {"a": jnp.ones(())},
        tasks=TASKS,
        shared={"a": True},
    )
    with pytest.raises(ValueError, match=r'use wrt="params", or HardSharing'):
        pull.feature_gram()


def test_the_gramian_is_that_of_the_whole_rows():
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=(3, 4, 2)), "b": {"c": rng.normal(size=(3,))}, "d": None}
    flat = np.concatenate([rows["a"].reshape(3, -1), rows["b"]["c"][:, None]], axis=1)
    as_float32 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rows)
    np.testing.assert_allclose(gramian(as_float32), flat @ flat.T, rtol=1e-5)
    with pytest.raises(ValueError, match="share no parameters"):
        gramian({"a": None})


def test_parameters_are_parted_merged_and_matched():
    one, two, three = (np.full(2, i) for i in (1, 2, 3))
    params = {"a": {"kernel": one, "bias": two}, "b": {"kernel": three}}
    shared, own = partition_params(
        params, {"a": {"kernel": True, "bias": False}, "b": {"kernel": False}}
    )
    assert shared["a"]["kernel"] is one and own["a"]["bias"] is two and own["b"]["kernel"] is three
    assert len(jax.tree.leaves(shared)) == 1 and len(jax.tree.leaves(own)) == 2
    same(merge_params(shared, own), params)
    same(jax.tree.leaves(select_matching_params(params, ("*/kernel",))), [one, three])
    with pytest.raises(ValueError, match=r"matches 'c/\*'; they are a/bias, a/kernel, b/kernel"):
        select_matching_params(params, ("c/*",))
