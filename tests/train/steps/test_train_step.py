"""The step is pure and right: alone, scanned, over seeds, over devices, with labels missing."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.data.pipeline import split_over_devices
from mmjax.data.sampling.batch_order import make_train_indices
from mmjax.encoders import MLPEncoder, TransformerEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_eval_program, make_train_program
from mmjax.train.steps.device_sums import sum_over_devices
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch, Tokens
from tests.tolerance import bound_difference

BALANCERS = {
    "equal": balance.equal,
    "static": lambda: balance.static({"kind": 1.0, "size": 0.3}),
    "uncertainty": lambda: balance.uncertainty(optax.sgd(0.1)),
    "pcgrad": balance.pcgrad,
}


class Identity(nn.Module):
    """A researcher's own encoder, the smallest there is: the vector itself."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        return Tokens(x[:, None], jnp.ones((len(x), 1), bool))


def start(model, batch, optimizer, balancer, seed=0):
    example = jax.tree.map(jnp.asarray, batch)
    init = jax.jit(lambda key: init_state(model, optimizer, balancer, example, key))
    return init(jax.random.key(seed))


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def test_one_step_of_linear_regression_in_closed_form():
    """Mean squared error over the labeled examples, one step of gradient descent."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=6)
    labeled = np.array([1, 0, 1, 1, 0, 1], bool)
    batch = Batch(
        inputs={"x": x.astype(np.float32)},
        present={"x": np.ones(6, bool)},
        lengths={},
        targets={"y": np.where(labeled, y, np.nan).astype(np.float32)},
        labeled={"y": labeled},
    )
    model = Model(encoders={"x": Identity()}, fusion=Concat(), heads={"y": Regression()})
    optimizer, balancer = optax.sgd(0.1), balance.equal()
    state = start(model, batch, optimizer, balancer)
    step = jax.jit(make_train_step(model, optimizer, balancer))
    new, metrics = step(state, on_device(batch))

    bias, kernel = sorted(map(np.asarray, jax.tree.leaves(state.params["heads_y"])), key=np.ndim)
    residual = (x @ np.asarray(kernel, np.float64) + np.asarray(bias))[:, 0] - y
    residual = np.where(labeled, residual, 0)
    slope = 2 * x.T @ residual / 4
    # A squared error may be defined with or without one half; the loss says which.
    total, count = metrics["loss/y"]
    assert count == 4
    half = float(total) / (residual**2).sum()
    assert half == pytest.approx(1, abs=1e-5) or half == pytest.approx(0.5, abs=1e-5)
    new_bias, new_kernel = sorted(
        map(np.asarray, jax.tree.leaves(new.params["heads_y"])), key=np.ndim
    )
    np.testing.assert_allclose(
        new_kernel[:, 0], kernel[:, 0] - 0.1 * half * slope, atol=bound_difference(50)
    )
    np.testing.assert_allclose(
        new_bias, bias - 0.1 * half * 2 * residual.sum() / 4, atol=bound_difference(50)
    )
    norm = half * np.sqrt((slope**2).sum() + (2 * residual.sum() / 4) ** 2)
    np.testing.assert_allclose(metrics["gradient_norm"][0], norm, rtol=1e-5)
    assert int(new.step) == 1


def test_loss_is_the_weighted_sum_of_task_losses(toy):
    model, batch = toy.model(), toy.batch(16, 0)
    optimizer, balancer = optax.sgd(0.1), balance.static({"kind": 2.0, "size": 0.25})
    state = start(model, batch, optimizer, balancer)
    _, metrics = jax.jit(make_train_step(model, optimizer, balancer))(state, on_device(batch))
    mean = {t: metrics[f"loss/{t}"][0] / metrics[f"loss/{t}"][1] for t in ("kind", "size")}
    np.testing.assert_allclose(
        metrics["loss"][0], 2 * mean["kind"] + 0.25 * mean["size"], rtol=1e-5
    )
    assert metrics["loss/kind"][1] == batch.labeled["kind"].sum()


@pytest.mark.parametrize("balancer", ["equal", "pcgrad"])
def test_bad_values_in_missing_labels_have_no_effect(toy, balancer):
    model, batch = toy.model(), toy.batch(16, 1)
    spoilt = batch._replace(
        targets={
            "kind": np.where(batch.labeled["kind"], batch.targets["kind"], 999).astype(np.int32),
            "size": np.where(batch.labeled["size"], batch.targets["size"], np.nan),
        }
    )
    optimizer, balancer = optax.sgd(0.1), BALANCERS[balancer]()
    state = start(model, batch, optimizer, balancer)
    step = jax.jit(make_train_step(model, optimizer, balancer))
    good, bad = (step(state, on_device(b))[0] for b in (batch, spoilt))
    chex.assert_trees_all_equal(good.params, bad.params)


@pytest.mark.parametrize("balancer", ["uncertainty", "pcgrad"])
def test_a_task_without_labels_changes_nothing_for_the_other(toy, balancer):
    """The shared parameters move as if only the labeled task existed."""
    batch = toy.batch(16, 2)
    batch.labeled["size"][:] = False
    alone = toy.model().clone(heads={"kind": Classification(4)})
    steps = []
    for model in (toy.model(), alone):
        optimizer, chosen = optax.sgd(0.1), BALANCERS[balancer]()
        state = start(model, batch, optimizer, chosen)
        if steps:
            state = state._replace(params={k: steps[0][0].params[k] for k in state.params})
        steps.append(
            (state, jax.jit(make_train_step(model, optimizer, chosen))(state, on_device(batch))[0])
        )
    (_, both), (_, one) = steps
    for part in one.params:
        chex.assert_trees_all_close(both.params[part], one.params[part], atol=bound_difference(100))
    chex.assert_trees_all_equal(both.params["heads_size"], steps[0][0].params["heads_size"])


def test_trees_are_summed_over_devices_leaf_by_leaf():
    """Whatever their shapes and types, and where there is nothing to sum."""
    rng = np.random.default_rng(0)
    tree = {
        "kernel": rng.normal(size=(4, 3, 2)).astype(np.float32),
        "count": rng.integers(0, 9, 4).astype(np.int32),
        "half": jnp.asarray(rng.normal(size=(4, 5)), jnp.bfloat16),
        "none": {},
        "empty": np.zeros((4, 0), np.float32),
    }
    over = jax.pmap(
        lambda x: sum_over_devices(x, DEVICE_AXIS), axis_name=DEVICE_AXIS, devices=jax.devices()[:4]
    )
    summed = over(tree)
    for device in range(4):
        found = jax.tree.map(lambda x, at=device: np.asarray(x)[at], summed)
        exact = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(0), tree)
        chex.assert_trees_all_close(
            found["kernel"],
            exact["kernel"].astype(np.float32),
            rtol=1e-6,
            atol=bound_difference(10),
        )
        assert found["count"] == exact["count"] and found["count"].dtype == np.int32
        np.testing.assert_allclose(found["half"].astype(np.float64), exact["half"], atol=0.05)
        assert found["half"].dtype == jnp.bfloat16
        assert found["none"] == {} and found["empty"].shape == (0,)
    nothing = jax.pmap(
        lambda x: (x, sum_over_devices({}, DEVICE_AXIS)),
        axis_name=DEVICE_AXIS,
        devices=jax.devices()[:4],
    )(np.arange(4.0))
    assert nothing[1] == {}


@pytest.mark.parametrize(
    ("balancer", "devices"),
    [
        *(pytest.param(b, 8, marks=() if b == "equal" else pytest.mark.slow) for b in BALANCERS),
        pytest.param("pcgrad", 2, marks=pytest.mark.slow),
    ],
)
def test_devices_give_the_parameters_of_one(toy, balancer, devices):
    """20 SGD steps; the numbers of missing labels, and weights, differ from device to device."""
    model, data = toy.model(), toy.batch(320, 0)
    data.labeled["size"][: 320 // devices] = False
    if devices == 2:
        data = data._replace(weights={"kind": np.linspace(0, 0.3, 320, dtype=np.float32)})
    optimizer, chosen = optax.sgd(0.05, momentum=0.9), BALANCERS[balancer]()
    indices = np.arange(320).reshape(1, 8, 20, 2).transpose(0, 2, 1, 3).reshape(1, 20, 16)
    step = make_train_step(model, optimizer, chosen, axis_name=DEVICE_AXIS)
    results, begun = [], start(model, data, optimizer, chosen)
    for n in (1, devices):
        state = jax.tree.map(lambda x: x[None], begun)
        program = make_train_program(step, replicas=1, devices=jax.devices()[:n])
        results.append(program(state, on_device(data), split_over_devices(indices, n)))
    (one, one_metrics), (many, many_metrics) = results
    counts = np.array(
        [data.labeled["size"][i].sum() for i in split_over_devices(indices, devices)[:, 0, 0]]
    )
    assert len(set(counts)) > 1  # the case is the one that a mean of means gets wrong
    chex.assert_trees_all_close(many.params, one.params, atol=1e-5)
    chex.assert_trees_all_close(many_metrics, one_metrics, rtol=1e-3, atol=1e-5)
    moved = jax.tree.map(lambda new, old: np.abs(new[0] - old).max(), one.params, begun.params)
    assert max(jax.tree.leaves(moved)) > 1e-2


@pytest.mark.slow
def test_scan_over_steps_equals_a_loop(toy):
    model, data = toy.model(sharing=HardSharing((8,), dropout=0.3)), toy.batch(64, 0)
    optimizer, balancer = optax.sgd(0.05), balance.pcgrad()
    indices = make_train_indices([3], 64, 8, 0, 8)
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    program = make_train_program(step, replicas=1, devices=jax.devices()[:1])

    begun = start(model, data, optimizer, balancer)
    looped, state = (jax.tree.map(lambda x: x[None], begun) for _ in range(2))
    scanned, _ = program(state, on_device(data), split_over_devices(indices, 1))
    for k in range(8):
        looped, _ = program(looped, on_device(data), split_over_devices(indices[:, k : k + 1], 1))
    chex.assert_trees_all_close(scanned.params, looped.params, atol=bound_difference(100))
    assert int(scanned.step[0]) == 8


@pytest.mark.slow
@pytest.mark.usefixtures("seeds_run")
def test_a_program_of_seeds_equals_each_alone(toy):
    """Initial parameters, batches and dropout differ by seed, and are those of the seed alone."""
    model, data = toy.model(sharing=HardSharing((8,), dropout=0.3)), toy.batch(64, 0)
    optimizer, balancer, seeds = optax.sgd(0.05), balance.pcgrad(), (5, 0, 2)
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    begun = {s: start(model, data, optimizer, balancer, s) for s in seeds}

    def train(some):
        states = jax.tree.map(lambda *x: jnp.stack(x), *(begun[s] for s in some))
        program = make_train_program(step, replicas=len(some), devices=jax.devices()[:1])
        indices = split_over_devices(make_train_indices(some, 64, 8, 0, 8), 1)
        return program(states, on_device(data), indices)[0].params

    together = train(seeds)
    for i, seed in enumerate(seeds):
        alone = jax.tree.map(lambda x: x[0], train([seed]))
        one = jax.tree.map(lambda x, i=i: x[i], together)
        chex.assert_trees_all_close(one, alone, atol=1e-5)


def test_the_state_is_donated(toy):
    model, data = toy.model(), toy.batch(16, 0)
    optimizer, balancer = optax.sgd(0.05), balance.equal()
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    program = make_train_program(step, replicas=1, devices=jax.devices()[:1])
    state = jax.tree.map(lambda x: x[None], start(model, data, optimizer, balancer))
    state = jax.device_put(
        state,
        jax.sharding.NamedSharding(
            jax.make_mesh(
                (1,),
                (DEVICE_AXIS,),
                axis_types=(jax.sharding.AxisType.Auto,),
                devices=jax.devices()[:1],
            ),
            jax.sharding.PartitionSpec(),
        ),
    )
    program(state, on_device(data), split_over_devices(make_train_indices([0], 16, 8, 0, 2), 1))
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))


def test_accumulation_is_that_of_optax(toy):
    """Two half batches accumulated make the step of the whole where all labels are there."""
    model, data = toy.model(), toy.batch(16, 0)
    for mask in data.labeled.values():
        mask[:] = True
    balancer, results = balance.equal(), []
    for optimizer, size in ((optax.sgd(0.1), 16), (optax.MultiSteps(optax.sgd(0.1), 2), 8)):
        state = start(model, data, optimizer, balancer)
        step = jax.jit(make_train_step(model, optimizer, balancer))
        for k in range(16 // size):
            part = jax.tree.map(lambda x, k=k, size=size: x[k * size : (k + 1) * size], data)
            state, _ = step(state, on_device(part))
        results.append(state.params)
    chex.assert_trees_all_close(*results, atol=bound_difference(100))


@pytest.mark.slow
def test_bfloat16_computes_low_and_keeps_high(toy):
    model, data = toy.model(), toy.batch(64, 0)
    optimizer, balancer = optax.sgd(0.05), balance.equal()
    results = []
    for dtype in ("float32", "bfloat16"):
        step = jax.jit(make_train_step(model, optimizer, balancer, compute_dtype=dtype))
        state, metrics = step(start(model, data, optimizer, balancer), on_device(data))
        assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.params))
        results.append(metrics["loss"][0])
    assert results[0] != results[1]
    np.testing.assert_allclose(*results, rtol=2e-2)


@pytest.mark.slow
def test_bfloat16_with_remat_is_bfloat16_within_its_rounding(toy):
    """The compiler may keep float32 between operations that it fuses, and remat fuses others.

    So each gradient, a sum of two layers of attention, may differ by a few roundings of 2^-8 of its
    norm. It differs from that of float32, and remat is no farther from it than bfloat16 is alone.
    """
    encoder = TransformerEncoder(width=8, layers=2, heads=2)
    encoders = {"vector": MLPEncoder((8,)), "sequence": encoder}
    plain, data = toy.model().clone(encoders=encoders), on_device(toy.batch(64, 0))
    optimizer, balancer = optax.sgd(1.0), balance.equal()
    state, gradients = start(plain, data, optimizer, balancer), []
    for remat, dtype in (((), "float32"), ((), "bfloat16"), (("*/layer*",), "bfloat16")):
        step = make_train_step(plain.clone(remat=remat), optimizer, balancer, compute_dtype=dtype)
        traced = jax.jit(step).trace(state, data)
        assert ("remat" in str(traced.jaxpr) or "checkpoint" in str(traced.jaxpr)) == bool(remat)
        params = traced.lower().compile()(state, data)[0].params
        gradients.append(jax.tree.leaves(jax.tree.map(jnp.subtract, state.params, params)))
    largest = max(jnp.linalg.norm(x) for x in gradients[0])
    errors = {"plain": 0.0, "remat": 0.0}
    for whole, low, again in zip(*gradients, strict=True):
        assert jnp.linalg.norm(again - low) <= 8 * 2**-8 * jnp.linalg.norm(low) + 1e-4 * largest
        errors["plain"] += float(jnp.sum((low - whole) ** 2))
        errors["remat"] += float(jnp.sum((again - whole) ** 2))
    assert 0 < errors["remat"] < 2 * errors["plain"]


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_evaluation_counts_every_labeled_example_once(toy, devices):
    """Accuracy and MAE over a split that no batch size divides, against NumPy."""
    model, data = toy.model(), toy.batch(50, 0)
    params = start(model, data, optax.sgd(0.1), balance.equal()).params
    step = make_eval_step(model, axis_name=DEVICE_AXIS)
    program = make_eval_program(step, replicas=1, devices=jax.devices()[:devices])
    positions = np.arange(64).reshape(1, 4, 16)
    sums = program(
        jax.tree.map(lambda x: x[None], {"params": params}),
        on_device(data),
        split_over_devices(np.where(positions < 50, positions, 0), devices),
        split_over_devices(positions < 50, devices),
    )
    predict = jax.jit(lambda *inputs: model.apply({"params": params}, *inputs, train=False))
    predictions = predict(data.inputs, data.present, data.lengths)
    kind = data.labeled["kind"]
    right = (np.argmax(predictions["kind"], -1) == data.targets["kind"])[kind]
    statistics = jax.tree.map(lambda x: np.asarray(x[0]), sums)
    assert statistics["kind"]["examples"] == kind.sum()
    assert model.heads["kind"].summary(statistics["kind"])["accuracy"] == pytest.approx(
        right.mean()
    )
    size = data.labeled["size"]
    error = np.abs(predictions["size"] - data.targets["size"])[size].mean()
    assert model.heads["size"].summary(statistics["size"])["mae"] == pytest.approx(error, rel=1e-5)


@pytest.mark.slow
def test_an_optimizer_that_takes_no_value_is_that_of_its_paper(toy):
    """Two steps of sam (Foret et al., ICLR 2021), not normalized: p - 0.1 g(p + 0.01 g(p))."""
    model, batch = toy.model(), toy.batch(16, 0)

    def train(optimizer, params, steps):
        state = init_state(model, optimizer, balance.equal(), batch, jax.random.key(0))
        state = state if params is None else state._replace(params=params)
        step = jax.jit(make_train_step(model, optimizer, balance.equal()))
        for _ in range(steps):
            state, _ = step(state, batch)
        return state.params

    start = train(optax.sgd(0.0), None, 1)
    uphill = train(optax.sgd(-0.01), start, 1)
    slope = jax.tree.map(lambda a, b: a - b, uphill, train(optax.sgd(1.0), uphill, 1))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start, slope)
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), sync_period=2)
    chex.assert_trees_all_close(train(sam, start, 2), expected, atol=1e-5)
