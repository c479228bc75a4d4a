"""A table of properties of every method; a new method adds a line to `TABLE`.

A method is compiled once for the cases, which are mapped like seeds.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.balance import Balancer, equal, mgda
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat, Late, Mean
from mmjax.heads import Classification, Regression
from mmjax.modalities import imbalance
from mmjax.model import Model
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

HEADS = {"kind": Classification(3), "size": Regression(mean=0.0, scale=1.0)}


class Line(NamedTuple):
    """A method in the table.

    Attributes:
      balancer: makes the balancer of a model with these modalities.
      auxiliary: makes the objectives.
      fusion: the model's fusion.
    """

    balancer: Callable[[list[str]], Balancer] = lambda modalities: equal()
    auxiliary: Callable[[list[str]], dict[str, Any]] = lambda modalities: {}
    fusion: Any = Concat()


def make_unimodal_losses(modalities, *, own_head=True):
    return {
        f"{task}_{m}": imbalance.UnimodalLoss(m, task, head, own_head=own_head)
        for m in modalities
        for task, head in HEADS.items()
    }


def map_to(part, modalities):
    pairs = [(f"{task}_{m}", task, m) for m in modalities for task in HEADS]
    return {name: task if part == "task" else m for name, task, m in pairs}


through_the_model = functools.partial(make_unimodal_losses, own_head=False)
TABLE = {
    "ConfidenceOrder": Line(auxiliary=lambda ms: {"order": imbalance.ConfidenceOrder("kind")}),
    "ModalityValuation": Line(auxiliary=lambda ms: {"value": imbalance.ModalityValuation("kind")}),
    "PrototypeRebalance": Line(
        auxiliary=lambda ms: {"pmr": imbalance.PrototypeRebalance("kind", 3, entropy_steps=1)}
    ),
    "UnimodalLoss": Line(auxiliary=make_unimodal_losses),
    "agm": Line(lambda ms: imbalance.modulated(mgda(), imbalance.agm())),
    "GradientDirection": Line(
        lambda ms: imbalance.modulated(mgda(), imbalance.cggm()),
        lambda ms: {f"turn_{t}": imbalance.GradientDirection(t, head) for t, head in HEADS.items()},
    ),
    "amco": Line(lambda ms: imbalance.amco(equal(), steps=2, sigma=0.3)),
    "cggm": Line(lambda ms: imbalance.modulated(equal(), imbalance.cggm())),
    "gradient_blend": Line(
        lambda ms: imbalance.gradient_blend(map_to("task", ms)), make_unimodal_losses
    ),
    "info_reg": Line(lambda ms: imbalance.info_reg(mgda(), steps=2, window=2)),
    "mla": Line(lambda ms: imbalance.mla(map_to("modality", ms)), through_the_model, Mean(width=6)),
    "mmpareto": Line(lambda ms: imbalance.mmpareto(map_to("modality", ms)), make_unimodal_losses),
    "ogm_ge": Line(lambda ms: imbalance.modulated(equal(), imbalance.ogm_ge())),
    "opm": Line(lambda ms: imbalance.opm(equal(), chance=1.0)),
    "reconboost": Line(
        lambda ms: imbalance.reconboost({f"boost_{m}": m for m in ms}),
        lambda ms: {f"boost_{m}": imbalance.ResidualBoosting(m, "kind") for m in ms},
        Late(6),
    ),
    "relearn": Line(
        lambda ms: imbalance.relearn(equal(), {f"impurity_{m}": m for m in ms}),
        lambda ms: {f"impurity_{m}": imbalance.ClusterImpurity(m, "kind", 3) for m in ms},
    ),
    "ume": Line(lambda ms: imbalance.ume(tuple(map_to("task", ms))), through_the_model, Late(6)),
}
# What the lines use, and formulas, which test_formulas.py covers.
COVERED = {"ClusterImpurity", "Modulation", "ResidualBoosting", "modulated"}
COVERED |= {"average_by_entropy", "compute_blend_weights"}


def test_every_method_has_a_line():
    assert set(TABLE) | COVERED == set(imbalance.__all__)
    assert not set(TABLE) & COVERED


def make_batch(modalities, examples=16, seed=0):
    rng = np.random.default_rng(seed)
    inputs = {m: rng.normal(size=(examples, 4)).astype(np.float32) for m in modalities}
    present = {m: rng.random(examples) < 0.8 for m in modalities}
    present[modalities[0]][:] = True
    kind = rng.integers(0, 3, examples).astype(np.int32)
    targets = {"kind": kind, "size": rng.normal(size=examples).astype(np.float32)}
    labeled = {"kind": rng.random(examples) < 0.8, "size": np.arange(examples) % 3 > 0}
    return Batch(inputs, present, {}, targets, labeled)


def fill_missing_with_garbage(batch):
    inputs = {m: np.where(batch.present[m][:, None], x, np.nan) for m, x in batch.inputs.items()}
    size = np.where(batch.labeled["size"], batch.targets["size"], np.nan)
    kind = np.where(batch.labeled["kind"], batch.targets["kind"], 77).astype(np.int32)
    return batch._replace(inputs=inputs, targets={"kind": kind, "size": size})


def make_cases(modalities):
    batch = make_batch(modalities)
    nobody = np.zeros(batch.size, bool)
    last = modalities[-1]
    return {
        "ordinary": batch,
        "garbage": fill_missing_with_garbage(batch),
        "a task without labels": batch._replace(labeled=batch.labeled | {"size": nobody}),
        "a modality missing everywhere": batch._replace(present=batch.present | {last: nobody}),
        "no label at all": batch._replace(labeled=dict.fromkeys(batch.labeled, nobody)),
    }


def make_parts(name, modalities, rate=0.1):
    line = TABLE[name]
    model = Model(
        {m: MLPEncoder((5,)) for m in modalities},
        line.fusion,
        HEADS,
        auxiliary=line.auxiliary(modalities),
    )
    return model, optax.sgd(rate), line.balancer(modalities)


def take_steps(parts, batch, key, count=3, **options):
    state = init_state(*parts, batch, key)
    step = make_train_step(*parts, **options)
    return jax.lax.scan(lambda s, _: (step(s, batch)[0], None), state, None, length=count)[0]


def assert_finite(state, which):
    for leaf in jax.tree.leaves((state.params, state.variables, state.balancer_state)):
        assert np.isfinite(np.asarray(leaf, np.float64)).all(), which


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_missing_modalities_and_labels_take_no_part(name):
    modalities = ["a", "b", "c"]
    parts, cases = make_parts(name, modalities), make_cases(modalities)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *cases.values())
    run = jax.jit(jax.vmap(functools.partial(take_steps, parts), (0, None)))
    states = jax.device_get(run(stacked, jax.random.key(0)))
    by_case = {c: jax.tree.map(lambda x, i=i: x[i], states) for i, c in enumerate(cases)}
    for which, state in by_case.items():
        assert_finite(state, which)
    for a, b in zip(
        jax.tree.leaves(by_case["garbage"].params),
        jax.tree.leaves(by_case["ordinary"].params),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    # The map over cases, as over seeds, gives what a case gives alone.
    alone = jax.jit(functools.partial(take_steps, parts))(
        jax.tree.map(jnp.asarray, cases["ordinary"]), jax.random.key(0)
    )
    for a, b in zip(
        jax.tree.leaves(by_case["ordinary"].params), jax.tree.leaves(alone.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_one_modality_and_bfloat16(name):
    """There is nothing to balance, and the state keeps its types, as the scan requires."""
    parts, batch = make_parts(name, ["a"]), jax.tree.map(jnp.asarray, make_batch(["a"]))
    run = functools.partial(take_steps, parts, compute_dtype="bfloat16")
    assert_finite(jax.jit(run)(batch, jax.random.key(0)), "one modality")


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_eight_devices_give_what_one_gives(name):
    """Labels and modalities are spread unevenly over the devices."""
    modalities = ["a", "b"]
    model, optimizer, balancer = make_parts(name, modalities, rate=0.05)
    data = make_batch(modalities, examples=96)
    data.labeled["size"][:48] = False
    data = jax.tree.map(jnp.asarray, data)
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    indices = np.arange(96).reshape(1, 48, 2).transpose(0, 2, 1)
    results = []
    for devices in (1, 8):
        state = init_state(model, optimizer, balancer, data, jax.random.key(0))
        program = make_train_program(step, replicas=1, devices=jax.devices()[:devices])
        states = jax.tree.map(lambda x: x[None], state)
        state, _ = program(states, data, split_over_devices(indices, devices))
        results.append(jax.device_get((state.params, state.variables, state.balancer_state)))
    one, many = results
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        tolerance = 2e-4 * np.abs(np.asarray(b, np.float64)).max() + 1e-6
        np.testing.assert_allclose(a, b, atol=tolerance)
