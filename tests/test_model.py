"""The model: masks, order of names, late fusion, errors."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.fusion import Concat, Gated, Late, Mean
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.parameters import mark_shared_parameters
from mmjax.sharing import CGC, Copies, HardSharing, MMoE, TaskSpecific
from mmjax.types import Tokens
from tests.tolerance import bound_difference

FUSIONS = {
    "concat": Concat(),
    "mean": Mean(6),
    "gated": Gated(6),
    "late": Late(6),
    "learned late": Late(6, learned=True),
}


class Identity(nn.Module):
    """A researcher's own encoder, the smallest there is: the vector itself."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        return Tokens(x[:, None], jnp.ones((len(x), 1), bool))


def apply(model, params, batch):
    return model.apply({"params": params}, batch.inputs, batch.present, batch.lengths, train=False)


def init(model, batch):
    args = (batch.inputs, batch.present, batch.lengths)
    return model.init(jax.random.key(0), *args, train=False)["params"]


def random_params(model, batch):
    rng, args = np.random.default_rng(0), (batch.inputs, batch.present, batch.lengths)
    make = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(make, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), shapes)


@pytest.mark.parametrize(
    "fusion",
    [pytest.param(f, marks=pytest.mark.slow if f != "late" else ()) for f in FUSIONS],
)
def test_what_is_missing_has_no_effect(toy, fusion):
    """NaN in absent inputs and behind the ends of sequences: same predictions, same gradients."""
    model, batch = toy.model(FUSIONS[fusion]), jax.tree.map(jnp.asarray, toy.batch(20, 0))
    inside = np.arange(7)[None] < np.asarray(batch.lengths["sequence"])[:, None]
    real = {
        "vector": np.asarray(batch.present["vector"])[:, None],
        "sequence": (inside & np.asarray(batch.present["sequence"])[:, None])[:, :, None],
    }
    spoilt = batch._replace(
        inputs={m: jnp.where(real[m], x, jnp.nan) for m, x in batch.inputs.items()}
    )
    params = random_params(model, batch)

    def total(params, batch):
        predictions = apply(model, params, batch)
        return sum((x**2).sum() for x in predictions.values()), predictions

    program = jax.jit(jax.grad(total, has_aux=True))
    expected, found = program(params, batch), program(params, spoilt)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_gets_a_gradient(toy, fusion):
    model, batch = toy.model(FUSIONS[fusion]), jax.tree.map(jnp.asarray, toy.batch(20, 0))

    def total(params):
        return sum((x**3).sum() for x in apply(model, params, batch).values())

    gradients = jax.jit(jax.grad(total))(random_params(model, batch))
    for path, g in jax.tree.leaves_with_path(gradients):
        assert np.abs(g).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_order_of_names_changes_nothing(toy, fusion):
    batch = toy.batch(8, 0)
    model = toy.model(FUSIONS[fusion])
    turned = model.clone(
        encoders=dict(reversed(model.encoders.items())), heads=dict(reversed(model.heads.items()))
    )
    params = init(model, batch)
    jax.tree.map(np.testing.assert_array_equal, params, init(turned, batch))
    for task, expected in apply(model, params, batch).items():
        np.testing.assert_array_equal(apply(turned, params, batch)[task], expected)


def test_late_fusion_averages_over_the_modalities_present(toy):
    """An example with one modality gets that branch's prediction; with both, their mean."""
    model, batch = toy.model(Late(6)), toy.batch(30, 0)
    params = init(model, batch)
    predict = jax.jit(functools.partial(apply, model))
    everything = {m: np.ones(30, bool) for m in batch.present}
    alone = {
        m: predict(params, batch._replace(present=everything | {other: np.zeros(30, bool)}))
        for m, other in (("vector", "sequence"), ("sequence", "vector"))
    }
    both = predict(params, batch._replace(present=everything))
    for task, found in both.items():
        expected = (np.asarray(alone["vector"][task]) + np.asarray(alone["sequence"][task])) / 2
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("fusion", ["concat", "late"])
def test_shared_parameters_are_all_but_the_heads(toy, fusion):
    model = toy.model(FUSIONS[fusion])
    shared = mark_shared_parameters(model, random_params(model, toy.batch(4, 0)))
    flags = {name: set(jax.tree.leaves(part)) for name, part in shared.items()}
    for name, flag in flags.items():
        assert flag == {not any(task in name for task in ("kind", "size"))}, name
    assert {True} in flags.values() and {False} in flags.values()


def test_shared_parameters_can_be_named(toy):
    params = random_params(toy.model(), toy.batch(4, 0))
    model = toy.model(shared=("encoders_*", "sharing/dense_0/kernel"))
    shared = mark_shared_parameters(model, params)
    assert set(jax.tree.leaves(shared["encoders_vector"])) == {True}
    assert shared["sharing"]["dense_0"] == {"kernel": True, "bias": False}
    assert set(jax.tree.leaves(shared["heads_kind"])) == {False}
    with pytest.raises(ValueError, match="No shared parameter matches 'encoder_vector'"):
        mark_shared_parameters(toy.model(shared=("encoder_vector",)), params)


def test_a_model_needs_encoders_and_heads():
    with pytest.raises(ValueError, match="encoders are empty; give it one per modality"):
        Model(encoders={}, fusion=Concat(), heads={"size": Regression()})
    with pytest.raises(ValueError, match="heads are empty; give it one per task"):
        Model(encoders={"vector": MLPEncoder()}, fusion=Concat(), heads={})


def test_numbers_of_a_small_model_by_hand(toy):
    """Vector and mean of a sequence, concatenated, through one linear layer each task."""
    batch = toy.batch(5, 0)
    model = Model(
        encoders={"vector": Identity()},
        fusion=Concat(),
        heads={"kind": Classification(4), "size": Regression(mean=2.0, scale=3.0)},
    )
    params = init(model, batch)
    x = np.where(batch.present["vector"][:, None], batch.inputs["vector"], 0)
    found = jax.jit(functools.partial(apply, model))(params, batch)
    weights = {t: jax.tree.leaves(params[f"heads_{t}"]) for t in ("kind", "size")}
    bias, kernel = sorted(map(np.asarray, weights["kind"]), key=np.ndim)
    np.testing.assert_allclose(found["kind"], x @ kernel + bias, atol=1e-5)
    bias, kernel = sorted(map(np.asarray, weights["size"]), key=np.ndim)
    np.testing.assert_allclose(found["size"], 2 + 3 * (x @ kernel + bias)[:, 0], atol=1e-5)


def test_dropout_acts_in_training_only(toy):
    batch = toy.batch(5, 0)
    model = Model(
        encoders={"sequence": RecurrentEncoder(width=16)},
        fusion=Concat(),
        heads={"size": Regression()},
        sharing=HardSharing((16,), dropout=0.5),
    )
    args = (batch.inputs, batch.present, batch.lengths)
    params = {"params": init(model, batch)}
    training, evaluating = (
        jax.jit(functools.partial(model.apply, train=train)) for train in (True, False)
    )
    one, two = (
        training(params, *args, rngs={"dropout": jax.random.key(i)})["size"] for i in (1, 2)
    )
    assert np.abs(one - two).max() > 0
    np.testing.assert_array_equal(*(evaluating(params, *args)["size"] for _ in "ab"))


def test_a_modality_may_be_called_like_a_head(toy):
    model = toy.model()
    model = model.clone(encoders={"heads_up": model.encoders["vector"]})
    batch = toy.batch(4, 0)
    inputs, present = ({"heads_up": part["vector"]} for part in (batch.inputs, batch.present))
    params = random_params(model, batch._replace(inputs=inputs, present=present, lengths={}))
    assert set(jax.tree.leaves(mark_shared_parameters(model, params)["encoders_heads_up"])) == {
        True
    }


class Probe(nn.Module):
    """Shows what a sharing is handed: two shared copies, and one copy for each task."""

    def copies(self, tasks):
        return Copies(shared=2, own=len(tasks))

    def __call__(self, x, tasks, *, train):
        return {
            t: jnp.concatenate([x.shared[0], x.shared[1], x.own[i]]) for i, t in enumerate(tasks)
        }


def vectors(fusion, sharing):
    """Two small encoders, whose programs compile in no time."""
    return Model(
        encoders={"vector": MLPEncoder((3,)), "sequence": MLPEncoder((4,))},
        fusion=fusion,
        heads={"kind": Classification(4), "size": Regression()},
        sharing=sharing,
    )


def features(model, params, batch):
    args = (batch.inputs, batch.present, batch.lengths)
    represent = functools.partial(model.apply, train=False, method="represent")
    return jax.jit(lambda p: represent({"params": p}, *args))(params)


def one_backbone(params, prefix, i):
    """The parameters of one of several backbones, under the names of a single one."""
    parts = {n.removeprefix(prefix): p for n, p in params.items() if n.startswith(prefix)}
    chosen = {n: p for n, p in parts.items() if n.startswith(("encoders_", "fusion"))}
    return jax.tree.map(lambda p: p[i], chosen)


def test_copies_of_the_backbone_are_backbones(toy):
    """Each has parameters of its own, and makes what a single backbone with those makes."""
    batch, model = toy.batch(6, 0), vectors(Mean(5), Probe())
    single, args = vectors(Mean(5), HardSharing()), (batch.inputs, batch.present, batch.lengths)
    places = [("", 0), ("", 1), ("own_", 0), ("own_", 1)]

    @jax.jit
    def both(key):
        params = model.init(key, *args, train=False)["params"]
        parts = [one_backbone(params, *place) for place in places]
        got, *alone = (
            m.apply({"params": p}, *args, train=False, method="represent")
            for m, p in [(model, params), *((single, p) for p in parts)]
        )
        return parts, got, [x["kind"] for x in alone]

    parts, got, alone = both(jax.random.key(0))
    for i, task in enumerate(("kind", "size")):
        expected = np.concatenate([alone[0], alone[1], alone[2 + i]])
        np.testing.assert_allclose(got[task], expected, atol=bound_difference(50))
    for one, other in itertools.combinations(parts, 2):
        for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
            assert a.ndim == 1 or np.abs(a - b).max() > 0.01


@pytest.mark.parametrize("fusion", ["concat", "learned late"])
def test_task_specific_is_each_task_alone(toy, fusion):
    """Predictions and gradients of one model per task, whose parameters are the rows."""
    batch = jax.tree.map(jnp.asarray, toy.batch(6, 0))
    model = vectors(FUSIONS[fusion], TaskSpecific())
    params = random_params(model, batch)
    single = vectors(FUSIONS[fusion], HardSharing())

    def gradients(model, params, task):
        def squares(params):
            out = apply(model, params, batch)[task]
            return (out**2).sum(), out

        return jax.jit(jax.grad(squares, has_aux=True))(params)

    for i, task in enumerate(("kind", "size")):
        heads = {n: p for n, p in params.items() if "heads_" in n}
        ours, got = gradients(model, params, task)
        theirs, expected = gradients(single, one_backbone(params, "own_", i) | heads, task)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
        rows, whole = one_backbone(ours, "own_", i), one_backbone(theirs, "", ...)
        assert rows and rows.keys() == whole.keys()
        for a, b in zip(*map(jax.tree.leaves, (rows, whole)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        for p in jax.tree.leaves(one_backbone(ours, "own_", 1 - i)):
            assert (p == 0).all()


def test_own_parameters_of_a_sharing_are_not_shared(toy):
    batch = toy.batch(4, 0)
    model = vectors(Concat(), CGC(1, 1, backbones=True))
    shared = mark_shared_parameters(model, random_params(model, batch))
    flags = {name: set(jax.tree.leaves(part)) for name, part in shared.items()}
    assert flags == {
        "encoders_vector": {True},
        "encoders_sequence": {True},
        "own_encoders_vector": {False},
        "own_encoders_sequence": {False},
        "sharing": {False},
        "heads_kind": {False},
        "heads_size": {False},
    }
    model = vectors(Late(3), MMoE(2, (3,)))
    shared = mark_shared_parameters(model, random_params(model, batch))["branch_sharing_vector"]
    assert set(jax.tree.leaves(shared["own_gates"])) == {False}
    assert set(jax.tree.leaves(shared["shared_experts"])) == {True}


def test_late_fusion_of_copies_weighs_by_their_mean(toy):
    """The weights of a task's branches sum to 1; they are the mean of its copies' weights."""
    batch = toy.batch(20, 0)
    model = vectors(Late(3, learned=True), CGC(1, 2, backbones=True))
    params = random_params(model, batch)
    got = features(model, params, batch)
    both = np.flatnonzero(batch.present["vector"] & batch.present["sequence"])[0]
    for i, task in enumerate(("kind", "size")):
        logits = {
            m: [
                params["fusion"][f"logit_{m}"][0],
                *params["own_fusion"][f"logit_{m}"][2 * i : 2 * i + 2],
            ]
            for m in ("vector", "sequence")
        }
        share = 1 / (1 + np.exp(np.subtract(logits["sequence"], logits["vector"])))
        np.testing.assert_allclose(got[task].weights["vector"][both], share.mean(), atol=1e-5)
        total = np.asarray(got[task].weights["vector"] + got[task].weights["sequence"])
        np.testing.assert_allclose(total, 1, atol=1e-5)
