"""What every auxiliary objective promises, in one table."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import auxiliary, balance
from mmjax.auxiliary import (
    CORAL,
    ELBO,
    MFM,
    MMD,
    BranchLosses,
    ConfidenceRanking,
    Decoders,
    DeepCCA,
    DirichletKL,
    Distillation,
    InfoNCE,
    MarginDistillation,
    MLPDecoder,
    Reconstruction,
    RefNet,
    ShaSpecLosses,
    Sown,
    Teacher,
)
from mmjax.data.dataset import Modality
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder, RecurrentEncoder, elman
from mmjax.fusion import ActionMAE, Late, Mean, ProductOfExperts, ShaSpec
from mmjax.heads import Classification, Evidential, Regression
from mmjax.model import Model
from mmjax.sharing import CGC, DSelectK, HardSharing, MMoE
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.steps.forward import compute_features, sum_objectives
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch
from tests.tolerance import bound_difference

WIDTH = 3
DECODERS = Decoders(hidden=(4,), likelihoods={"picture": "bernoulli"}, vocabularies={"word": 5})


def make_batch(examples=16, seed=0):
    """A vector, a sequence, pixels and tokens; each is missing here and there, never two of them.

    No labels are missing, so that tasks do not hide what objectives do.
    """
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, examples).astype(np.int32)
    names = ("picture", "series", "vector", "word")
    missing = rng.integers(0, 8, examples)
    lengths = {m: rng.integers(2, 5, examples).astype(np.int32) for m in ("series", "word")}
    return Batch(
        inputs={
            "picture": rng.integers(0, 256, (examples, 2, 2, 1)).astype(np.uint8),
            "series": (rng.normal(size=(examples, 4, 2)) + kind[:, None, None]).astype(np.float32),
            "vector": (rng.normal(size=(examples, 3)) + np.eye(3)[kind]).astype(np.float32),
            "word": rng.integers(0, 5, (examples, 4)).astype(np.int32),
        },
        present={m: missing != i for i, m in enumerate(names)},
        lengths=lengths,
        targets={"kind": kind, "size": kind.astype(np.float32)},
        labeled={"kind": np.ones(examples, bool), "size": np.ones(examples, bool)},
    )


def make_encoders(modalities):
    every = {
        "picture": MLPEncoder((WIDTH,)),
        "series": RecurrentEncoder(elman(), WIDTH),
        "vector": MLPEncoder((WIDTH,)),
        "word": MLPEncoder((WIDTH,)),
    }
    return {m: every[m] for m in modalities}


def make_model(auxiliary, modalities=("series", "vector"), fusion=None, **options):
    return Model(
        encoders=make_encoders(modalities),
        fusion=fusion or Mean(4),
        auxiliary={"extra": auxiliary} if auxiliary else {},
        **{"heads": {"kind": Classification(3), "size": Regression()}} | options,
    )


def make_teacher():
    model = make_model(None, ("vector",))
    model = model.clone(heads={"kind": model.heads["kind"]})
    batch = make_batch()
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), *batch[:3]
    )["params"]
    return Teacher(model, random_params(shapes, 7), {"vector": Modality((3,))})


def random_params(shapes, seed=0):
    """Parameters at which no relu is dead for all examples."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: np.asarray(0.5 * rng.normal(size=s.shape), s.dtype), shapes)


POE = ProductOfExperts(4, sample=False)
TABLE = {
    "info_nce": (InfoNCE(4), {}),
    "info_nce of three": (InfoNCE(4), {"modalities": ("picture", "series", "vector")}),
    "info_nce mixed": (InfoNCE(4, mix=1.0), {}),
    "cca": (DeepCCA(2), {}),
    "reconstruction": (
        Reconstruction(decoders=DECODERS),
        {"modalities": ("picture", "series", "vector", "word")},
    ),
    "cross reconstruction": (
        Reconstruction("vector", decoders=Decoders(hidden=(4,))),
        {"modalities": ("series", "vector")},
    ),
    "mfm": (MFM(2, 3, decoders=Decoders(hidden=(4,))), {}),
    "elbo": (ELBO(0.5, {"vector": 2.0}, False, Decoders(hidden=(4,))), {"fusion": POE}),
    "refnet": (RefNet((4,)), {}),
    "coral": (CORAL(), {}),
    "mmd": (MMD(), {}),
    "distillation": (Distillation(make_teacher(), tasks=("kind",)), {}),
    "branch losses": (BranchLosses(), {"fusion": Late(4)}),
    "ranking": (ConfidenceRanking(("kind",)), {"fusion": Late(4)}),
    "dirichlet kl": (
        DirichletKL(("kind",), annealing_steps=0),
        {"fusion": Late(4, joint=True), "heads": {"kind": Evidential(3), "size": Regression()}},
    ),
    "sha spec": (ShaSpecLosses(), {"fusion": ShaSpec(4)}),
    "reconstructed": (Sown("fusion", "reconstruction"), {"fusion": ActionMAE(4, heads=2)}),
    "margin": (MarginDistillation(make_teacher(), "kind"), {}),
    "sown": (Sown("sharing", "entropy"), {"sharing": DSelectK(2, 1, (3,))}),
}
DEEP = ("info_nce mixed", "ranking", "dirichlet kl", "sha spec", "reconstructed", "margin")


def mark_slow(names):
    """Marks the objectives whose programs take long to compile."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in names]


CASES = pytest.mark.parametrize("name", mark_slow(TABLE))
# Each of these compiles a training step, or several programs.
FEW = ("info_nce", "mmd", "elbo", "distillation")
SOME = pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in TABLE]
)


@functools.cache
def ready(name, **changes):
    """The model with an objective, a batch of its modalities, and random parameters."""
    objective, options = TABLE[name]
    options = {"modalities": ("series", "vector")} | options | changes
    model, batch = make_model(objective, **options), make_batch()
    batch = keep(batch, options["modalities"])
    shapes = jax.eval_shape(
        functools.partial(model.init, method="call_all_parts", mutable=True),
        jax.random.key(0),
        batch,
    )["params"]
    return model, batch, random_params(shapes)


def keep(batch, modalities):
    of_kind = [{m: part[m] for m in modalities if m in part} for part in batch[:3]]
    return Batch(*of_kind, *batch[3:])


def sums(model, params, batch, dtype="float32"):
    """The objective's total and count, as the training step computes them."""
    batch, rngs = jax.tree.map(jnp.asarray, batch), {"dropout": jax.random.key(3)}
    variables, options = {"params": params}, {"compute_dtype": dtype, "train": True, "rngs": rngs}
    features, _ = compute_features(model, variables, batch, **options)
    total, count, _ = sum_objectives(
        model, variables, features, batch, rngs=rngs, gather=lambda x: x
    )
    return total[0], count[0]


def loss(model, params, batch, dtype="float32"):
    total, count = sums(model, params, batch, dtype)
    return total / jnp.maximum(count, 1), count


def spoilt(batch):
    """NaN, or a wild number, in absent modalities and behind the ends of sequences."""
    inputs = {}
    for m, x in batch.inputs.items():
        there = batch.present[m].reshape(-1, *[1] * (x.ndim - 1))
        if m in batch.lengths:
            inside = np.arange(x.shape[1])[None] < batch.lengths[m][:, None]
            there = there & inside.reshape(*inside.shape, *[1] * (x.ndim - 2))
        wild = np.nan if x.dtype == np.float32 else 99
        inputs[m] = np.where(there, x, np.asarray(wild, x.dtype))
    return batch._replace(inputs=inputs)


@SOME
def test_values_slopes_padding_seeds_and_half_precision(name):
    """One program of everything: what is missing has no effect, every parameter of the objective
    and its encoders has a slope, seeds are mapped over, bfloat16 is finite."""
    model, batch, params = ready(name)
    other = jax.tree.map(lambda p: (p + 0.1).astype(p.dtype), params)

    @jax.jit
    def everything(params, other, batch, bad):
        slope = jax.value_and_grad(functools.partial(loss, model), has_aux=True)
        both = jax.tree.map(lambda *p: jnp.stack(p), other, params)
        seeds = jax.vmap(slope, (0, None))(both, batch)
        half = jax.value_and_grad(lambda p: loss(model, p, batch, "bfloat16")[0])(params)
        pair = jax.tree.map(lambda *x: jnp.stack(x), batch, bad)
        # In a loop, so that both are rounded alike.
        return jax.lax.map(functools.partial(slope, params), pair), seeds, half

    pair, seeds, half = everything(params, other, batch, spoilt(batch))
    good, bad = (jax.tree.map(lambda x, i=i: x[i], pair) for i in range(2))
    ((value, count), slopes) = good
    assert np.isfinite(value) and value > 1e-4 and count > 0
    chex.assert_trees_all_equal(good, bad)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], seeds), good, rtol=1e-4, atol=1e-5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(half))
    np.testing.assert_allclose(half[0], value, rtol=0.1, atol=0.02)
    own = [s for part, s in slopes.items() if part.startswith("auxiliary_")]
    assert bool(own) == (type(TABLE[name][0]) not in WITHOUT_PARAMETERS)
    for path, slope in jax.tree.leaves_with_path([own, reached(name, slopes)]):
        assert np.abs(slope).max() > 0, jax.tree_util.keystr(path)


def reached(name, slopes):
    """The parts of the model that an objective is to teach something."""
    if name == "sown":
        return slopes["sharing"]["own_selectors"]
    if name in ("cross reconstruction", "distillation"):
        return slopes["encoders_vector"]
    parts = [s for part, s in slopes.items() if part.startswith("encoders_")]
    return [*parts, slopes["fusion"]] if TABLE[name][0].__class__ in FROM_FUSED else parts


WITHOUT_PARAMETERS = (CORAL, MMD, Distillation, Sown, BranchLosses, ConfidenceRanking)
WITHOUT_PARAMETERS += (DirichletKL, MarginDistillation)
DRAWING = ("info_nce mixed", "reconstructed")  # every device draws with a key of its own
FROM_FUSED = (Reconstruction, MFM, ELBO, RefNet)


@CASES
def test_the_order_of_modalities_changes_nothing(name):
    model, batch, params = ready(name)
    turned = model.clone(encoders=dict(reversed(model.encoders.items())))
    backwards = Batch(*(dict(reversed(part.items())) for part in batch))
    programs = [jax.jit(functools.partial(sums, m)) for m in (model, turned)]
    np.testing.assert_array_equal(programs[0](params, batch), programs[1](params, backwards))


@pytest.mark.parametrize("name", mark_slow(n for n in TABLE if n != "sown"))
def test_a_batch_without_any_pair_has_no_loss(name):
    """Or without anything at all, for those objectives that need no pair."""
    model, batch, params = ready(name)
    present = {m: here & (m == "series") for m, here in batch.present.items()}
    if name not in ("info_nce", "info_nce of three", "info_nce mixed", "cca", "coral", "mmd"):
        present = {m: np.zeros_like(here) for m, here in present.items()}
    batch = batch._replace(present=present)
    f = jax.jit(jax.value_and_grad(functools.partial(sums, model), has_aux=True))
    (total, count), slopes = f(params, batch)
    assert total == 0 and count == 0
    assert all((g == 0).all() for g in jax.tree.leaves(slopes))


BALANCERS = {
    "equal": balance.equal,
    "static": lambda: balance.static({"kind": 1.0, "size": 0.5, "extra": 0.3}),
    "pcgrad": balance.pcgrad,
    "cagrad": balance.cagrad,
}


def start(model, balancer, batch, optimizer):
    init = jax.jit(lambda key: init_state(model, optimizer, balancer, batch, key))
    return init(jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TABLE if n not in DRAWING])
def test_eight_devices_train_as_one(name):
    """Three steps of SGD; the numbers of missing modalities differ from device to device."""
    model, *_ = ready(name)
    data = jax.tree.map(jnp.asarray, keep(make_batch(72), model.encoders))
    optimizer, balancer = optax.sgd(0.05, momentum=0.9), balance.equal()
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    indices = np.arange(72).reshape(1, 3, 24)
    results, begun = [], start(model, balancer, data, optimizer)
    for n in (1, 8):
        state = jax.tree.map(lambda x: x[None], begun)
        program = make_train_program(step, replicas=1, devices=jax.devices()[:n])
        results.append(program(state, data, split_over_devices(indices, n)))
    (one, told), (many, also_told) = results
    chex.assert_trees_all_close(many.params, one.params, atol=2e-5)
    assert (told["loss/extra"][1] > 0).all()
    means = [m["loss/extra"][0] / m["loss/extra"][1] for m in (told, also_told)]
    np.testing.assert_allclose(*means, rtol=1e-4, atol=bound_difference(100))


@pytest.mark.slow
@SOME
def test_a_gradient_balancer_weighs_it_over_several_backbones(name):
    """A step under pcgrad of a sharing with two backbones: finite, and it moves."""
    sharing = DSelectK(2, 1, backbones=True) if name == "sown" else MMoE(2, backbones=True)
    model, batch, _ = ready(name, sharing=sharing)
    batch = jax.tree.map(jnp.asarray, batch)
    optimizer, balancer = optax.sgd(0.05), balance.pcgrad()
    state = start(model, balancer, batch, optimizer)
    new, metrics = jax.jit(make_train_step(model, optimizer, balancer))(state, batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((new.params, metrics)))
    assert metrics["loss/extra"][1] > 0 and metrics["weight/extra"][0] > 0
    moved = jax.tree.map(jnp.subtract, new.params, state.params)
    assert max(np.abs(x).max() for x in jax.tree.leaves(moved["encoders_vector"])) > 0
    for path, step in jax.tree.leaves_with_path(moved.get("auxiliary_extra", {})):
        assert np.abs(step).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "balancer",
    [b if b == "pcgrad" else pytest.param(b, marks=pytest.mark.slow) for b in BALANCERS],
)
def test_balancers_are_told_when_there_is_nothing_to_learn(balancer):
    """Then the step is that of the model without the objective."""
    model, batch, _ = ready("info_nce", sharing=HardSharing((3,)))
    batch = jax.tree.map(jnp.asarray, batch)
    batch = batch._replace(present=batch.present | {"series": jnp.zeros(16, bool)})
    optimizer, steps = optax.sgd(0.05), []
    for m in (model, model.clone(auxiliary={})):
        chosen = BALANCERS[balancer]()
        if balancer == "static" and not m.auxiliary:
            chosen = balance.static({"kind": 1.0, "size": 0.5})
        state = start(m, chosen, batch, optimizer)
        if steps:
            state = state._replace(params={k: steps[0][0].params[k] for k in state.params})
        steps.append((state, *jax.jit(make_train_step(m, optimizer, chosen))(state, batch)))
    (before, after, metrics), (_, alone, _) = steps
    assert metrics["loss/extra"] == (0, 0)
    for part in alone.params:
        chex.assert_trees_all_close(
            after.params[part], alone.params[part], atol=bound_difference(100)
        )
    chex.assert_trees_all_equal(after.params["auxiliary_extra"], before.params["auxiliary_extra"])


def test_of_several_backbones_the_loss_is_the_mean():
    """Own backbones too: each sees the batch once, with its own encoders."""
    model, batch, params = ready("refnet", sharing=CGC(1, 1, backbones=True))
    f = jax.jit(functools.partial(sums, model))
    total, count = f(params, batch)
    single, _, _ = ready("refnet")
    parts = []
    for prefix, i in (("", 0), ("own_", 0), ("own_", 1)):
        one = {
            n: jax.tree.map(lambda p, i=i: p[i], params[prefix + n])
            for n in (*(f"encoders_{m}" for m in single.encoders), "fusion")
        }
        heads = {n: p for n, p in ready("refnet")[2].items() if n.startswith("heads_")}
        one |= heads | {"auxiliary_extra": params["auxiliary_extra"]}
        parts.append(jax.jit(functools.partial(sums, single))(one, batch))
    np.testing.assert_allclose(total, sum(p[0] for p in parts), rtol=1e-5)
    assert count == sum(p[1] for p in parts)


def test_every_objective_is_in_the_table():
    public = {getattr(auxiliary, name) for name in auxiliary.__all__}
    classes = {c for c in public if isinstance(c, type)} - {Decoders, MLPDecoder, Teacher}
    assert classes == {type(objective) for objective, _ in TABLE.values()}
