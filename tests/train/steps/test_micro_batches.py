"""Micro-batches make the step of the whole batch, in less memory."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import auxiliary, balance, fit
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder, ResidualEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.pretrained import LoRA
from mmjax.sharing import CrossStitch, MMoE
from mmjax.train.checks.memory_check import check_accumulate
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.steps.micro_batches import map_micro_batches
from mmjax.train.steps.state import init_frozen_variables, init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch, Tokens

KEY = jax.random.key(0)


class Normalized(nn.Module):
    """The batch norm of a vector."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        return Tokens(nn.BatchNorm(momentum=0.75)(x)[:, None], jnp.ones((len(x), 1), bool))


def make_model(encoder=None, **options):
    return Model(
        {"vector": encoder or MLPEncoder((8,))},
        Concat(),
        {"kind": Classification(4), "size": Regression()},
        **options,
    )


def train(model, batch, balancer, accumulate=1, *, devices=1, replicas=1, steps=3, **options):
    """Takes SGD steps on one batch; returns the states and the metrics."""
    optimizer, batch = optax.sgd(0.1), jax.tree.map(jnp.asarray, batch)
    options = {"accumulate": accumulate, "axis_name": DEVICE_AXIS, **options}
    step = make_train_step(model, optimizer, balancer, **options)
    keys = jax.random.split(KEY, replicas)
    states = jax.vmap(lambda key: init_state(model, optimizer, balancer, batch, key))(keys)
    program = make_train_program(step, replicas=replicas, devices=jax.devices()[:devices])
    indices = np.tile(np.arange(batch.size), (replicas, steps, 1))
    return program(states, batch, split_over_devices(indices, devices))


def assert_same_training(one, other, atol=1e-5):
    chex.assert_trees_all_close(one[0].params, other[0].params, atol=atol)
    chex.assert_trees_all_close(one[1], other[1], rtol=1e-3, atol=atol)


def weigh_unevenly(batch):
    """Spreads the labels of one task, and the weights of the other, unevenly over the batch."""
    batch.labeled["size"][: batch.size // 3] = False
    batch.labeled["size"][1::4] = False
    return batch._replace(weights={"kind": np.linspace(0, 0.3, batch.size, dtype=np.float32)})


def test_micro_batches_make_the_step_of_the_whole_batch(toy):
    batch = weigh_unevenly(toy.batch(48, 0))
    whole = train(make_model(), batch, balance.pcgrad(), diagnostics=True)
    parts = train(make_model(), batch, balance.pcgrad(), 4, diagnostics=True)
    assert_same_training(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("balancer", "devices", "replicas", "accumulate"),
    [
        (balance.uncertainty, 2, 2, 8),
        (balance.famo, 8, 1, 3),
        (balance.sdmgrad, 2, 1, 4),  # which splits the batch itself
    ],
)
def test_so_do_devices_seeds_and_sequences(toy, balancer, devices, replicas, accumulate):
    batch, options = weigh_unevenly(toy.batch(48, 0)), {"replicas": replicas}
    whole = train(toy.model(), batch, balancer(), **options)
    parts = train(toy.model(), batch, balancer(), accumulate, devices=devices, **options)
    assert_same_training(whole, parts)


@pytest.mark.slow
def test_objectives_see_the_whole_batch(toy):
    """A contrastive one has all negatives; the sharing sows gates whose examples are an axis 1."""
    objectives = {"pairs": auxiliary.InfoNCE(), "gates": auxiliary.Sown("sharing", "gates")}
    model = toy.model(sharing=MMoE(experts=2, features=(4,)), auxiliary=objectives)
    batch = toy.batch(16, 1)
    whole = train(model, batch, balance.equal())
    assert_same_training(whole, train(model, batch, balance.equal(), 4))
    assert_same_training(whole, train(model, batch, balance.equal(), 2, devices=2))


@pytest.mark.slow
def test_modalities_are_scored_and_hidden_as_in_the_whole_batch(toy):
    """By methods against imbalance, which look at every example of the batch."""
    from mmjax.modalities.imbalance import modulated, ogm_ge, opm

    batch = toy.batch(32, 2)
    for balancer in (modulated(balance.equal(), ogm_ge()), opm(balance.equal())):
        whole = train(toy.model(), batch, balancer)
        assert_same_training(whole, train(toy.model(), batch, balancer, 4))


@pytest.mark.slow
def test_frozen_parameters_and_low_rank_updates_train_as_in_the_whole_batch(toy):
    model, batch = toy.model(), jax.tree.map(jnp.asarray, toy.batch(16, 3))
    options = {"trainable": ("heads_*", "sharing/*"), "lora": {"encoders_vector/*/kernel": LoRA(2)}}
    frozen = init_frozen_variables(model, batch, **options)
    parts, results = (model, optax.sgd(0.1), balance.pcgrad()), []
    for accumulate in (1, 4):
        state = init_state(*parts, batch, KEY, **options)
        step = jax.jit(make_train_step(*parts, accumulate=accumulate))
        for _ in range(3):
            state, _ = step(state, batch, frozen)
        results.append(state.params)
    chex.assert_trees_all_close(*results, atol=1e-5)


@pytest.mark.slow
def test_batch_norms_see_one_micro_batch_after_the_other(toy):
    """A micro-batch has every fourth example; the running mean moves by a quarter per micro-batch.

    Absent examples do not count.
    """
    batch = toy.batch(32, 4)
    state, _ = train(make_model(Normalized()), batch, balance.equal(), 4, steps=1)
    mean = np.zeros(6)
    for i in range(4):
        rows = batch.inputs["vector"][i::4][batch.present["vector"][i::4]]
        mean = 0.75 * mean + 0.25 * rows.mean(axis=0, dtype=np.float64)
    (statistics,) = state.variables["batch_stats"]["encoders_vector"].values()
    np.testing.assert_allclose(statistics["mean"][0], mean, atol=1e-5)


@pytest.mark.slow
def test_sums_over_micro_batches_are_float32(toy):
    """In bfloat16, a sum of 512 equal terms would stop growing at half of its value."""
    one = toy.batch(1, 5)
    one.present["vector"][:], one.labeled["kind"][:], one.labeled["size"][:] = True, True, True
    many = jax.tree.map(lambda x: np.repeat(x, 512, axis=0), one)
    options = {"compute_dtype": "bfloat16", "steps": 1}
    alone = train(make_model(), one, balance.equal(), **options)
    summed = train(make_model(), many, balance.equal(), 512, **options)
    chex.assert_trees_all_close(alone[0].params, summed[0].params, rtol=2e-2, atol=2e-3)
    norms = [float(run[1]["gradient_norm"][0][0, 0]) for run in (alone, summed)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-2) and norms[0] > 0.1


def test_a_step_needs_the_memory_of_a_micro_batch(toy):
    """Of 4096 examples with hidden layers of 256 numbers, eighths."""
    model = make_model(MLPEncoder((256, 256, 8)))
    batch = jax.tree.map(jnp.asarray, toy.batch(4096, 0))
    parts = model, optax.sgd(0.1), balance.equal()
    state = jax.eval_shape(lambda key: init_state(*parts, batch, key), KEY)
    sizes = []
    for accumulate in (1, 8):
        step = jax.jit(make_train_step(*parts, accumulate=accumulate))
        compiled = step.lower(state, batch).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[0] > 2 * 4096 * 256 * 4
    assert sizes[1] < sizes[0] / 4


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"batch_size=60 .* accumulate=4 .* 2; choose .*56 or 64"):
        check_accumulate(60, 4, devices=2)
    with pytest.raises(ValueError, match=r"3 parts .* choose batch_size=24, or"):
        check_accumulate(8, 4, devices=2, parts=3)
    message = "by the number of devices, 2, times the 3 parts .* choose batch_size=6 or 12.$"
    with pytest.raises(ValueError, match=message):
        check_accumulate(7, 1, devices=2, parts=3)
    check_accumulate(7, 1, devices=2)  # refused as indivisible by devices alone
    batch = jnp.ones((6, 2))
    with pytest.raises(ValueError, match="accumulate=4 does not divide the 6 examples"):
        map_micro_batches(lambda v, x, key: (x, v), 4, {}, batch, KEY)
    with pytest.raises(ValueError, match=r"\(6, 6\) for the batch and \(2, 2\) .* objective"):
        map_micro_batches(lambda v, x, key: (x @ x.T, v), 3, {}, batch, KEY)
    with pytest.raises(ValueError, match="constant shapes"):
        map_micro_batches(lambda v, x, key: (x, {"seen": x}), 3, {"seen": batch}, batch, KEY)


def test_outputs_are_joined_in_the_order_of_the_examples():
    def compute(variables, x, key):
        outputs = {"rows": x, "columns": x.T, "mean": x.mean(), "size": jnp.array(len(x))}
        return outputs, {"count": variables["count"] + 1}

    x = jnp.arange(12.0).reshape(6, 2)
    outputs, variables = map_micro_batches(compute, 3, {"count": jnp.array(0)}, x, KEY)
    chex.assert_trees_all_equal(outputs["rows"], x)
    chex.assert_trees_all_equal(outputs["columns"], x.T)
    assert (outputs["mean"], outputs["size"], variables["count"]) == (5.5, 2, 3)


@pytest.mark.slow
def test_a_run_is_that_of_the_whole_batch_and_resumes_to_the_same_bits(toy, tmp_path):
    options = {"optimizer": optax.sgd(0.05), "balancer": balance.pcgrad(), "batch_size": 32}

    def run(name, epochs=2, **more):
        experiment = toy.experiment(**options, epochs=epochs, **more)
        return fit(experiment, tmp_path / name, devices=jax.devices()[:2]).state.train.params

    whole, parts = run("whole"), run("parts", accumulate=4)
    chex.assert_trees_all_close(whole, parts, atol=1e-5)
    run("resumed", epochs=1, accumulate=4)
    chex.assert_trees_all_equal(run("resumed", accumulate=4), parts)


def test_an_experiment_whose_batch_cannot_be_divided_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="choose batch_size=15 or 18"):
        fit(toy.experiment(accumulate=3), tmp_path, devices=jax.devices()[:1])
    with pytest.raises(ValueError, match="accumulate is 0; it must be at least 1"):
        toy.experiment(accumulate=0)


@pytest.mark.slow
def test_copied_convolutions_have_the_jacobian_of_the_whole_batch():
    """JAX cannot batch their gradients over the rows of a Jacobian, which are mapped in turn."""
    rng, complete = np.random.default_rng(0), np.ones(8, bool)
    targets = {t: rng.normal(size=8).astype(np.float32) for t in "ab"}
    images = {"image": rng.normal(size=(8, 4, 4, 1)).astype(np.float32)}
    labeled = dict.fromkeys(targets, complete)
    batch = Batch(images, {"image": complete}, {}, targets, labeled)
    model = Model(
        {"image": ResidualEncoder((2,))},
        Concat(),
        {task: Regression(mean=0.0, scale=1.0) for task in "ab"},
        sharing=CrossStitch(backbones=True),
    )
    whole = train(model, batch, balance.moco(), steps=2)
    assert_same_training(train(model, batch, balance.moco(), 2, steps=2), whole)
