"""Large arrays are split over devices, and the step stays that of one device."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from mmjax import balance
from mmjax.balance.jacobian_rows import gramian
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.inspection.equations import iterate_equations
from mmjax.model import Model
from mmjax.train.hardware.device_groups import make_group_mesh
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.hardware.placement import make_placement
from mmjax.train.hardware.split_arrays import (
    choose_split,
    gather_arrays,
    regather_in_backward_pass,
    split_state,
)
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch
from tests.tolerance import bound_difference


@pytest.mark.parametrize(
    "shape, devices, expected",
    [
        ((64, 128), 8, P(None, "data")),  # the largest axis
        ((128, 64), 8, P("data")),
        ((64, 64), 8, P("data")),  # of equal ones the first
        ((60, 128, 3), 8, P(None, "data")),
        ((1001, 24), 8, P(None, "data")),  # the largest that eight devices divide
        ((1001, 25), 8, P()),
        ((4096,), 8, P("data")),
        ((4088,), 8, P()),  # small
        ((64, 128), 1, P()),
        ((), 8, P()),
    ],
)
def test_an_array_is_split_along_its_largest_even_axis(shape, devices, expected):
    assert choose_split(shape, devices) == expected


def test_nothing_happens_in_programs_that_the_compiler_does_not_partition():
    tree = {"w": jnp.ones((64, 128))}
    assert gather_arrays(tree) is tree and split_state(tree) is tree
    assert regather_in_backward_pass(jnp.sin) is jnp.sin
    over = jax.pmap(gather_arrays, axis_name=DEVICE_AXIS, devices=jax.devices()[:2])
    assert "sharding_constraint" not in over.lower({"w": jnp.ones((2, 64, 128))}).as_text()


def test_what_a_model_recomputes_is_recomputed_on_split_arrays_too():
    """A policy around `jax.checkpoint` would keep the activations inside of it."""

    def count_sines(wrap):
        @wrap
        def function(w):
            w = gather_arrays(w)
            return jax.checkpoint(lambda w: jnp.sin(jnp.sin(w)).sum())(w)

        traced = jax.make_jaxpr(jax.grad(function))(jnp.ones((64, 128)))
        return sum(eqn.primitive.name == "sin" for eqn in iterate_equations(traced))

    mesh = make_group_mesh(jax.devices(), 1)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert count_sines(regather_in_backward_pass) == count_sines(lambda f: f) > 2


def test_arrays_are_gathered_again_beside_a_checkpoint_that_keeps_products():
    """Such as that around the layers of pretrained towers, which keeps the larger activations."""
    keep = jax.checkpoint_policies.dots_saveable

    def count_gathers(wrap):
        @wrap
        def function(w):
            w = gather_arrays(w)
            return jax.checkpoint(lambda w: jnp.sin(w @ w).sum(), policy=keep)(w)

        traced = jax.make_jaxpr(jax.grad(function))(jnp.ones((128, 128)))
        names = [eqn.primitive.name for eqn in iterate_equations(traced)]
        return names.count("sharding_constraint")

    mesh = make_group_mesh(jax.devices(), 1)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert count_gathers(regather_in_backward_pass) > count_gathers(lambda f: f)


def test_unknown_shardings_are_refused(toy):
    experiment = toy.experiment()
    object.__setattr__(experiment, "sharding", "zero")  # which the tests' type checks would refuse
    with pytest.raises(ValueError, match='sharding is \'zero\'; it must be "replicated" or "fsdp'):
        experiment.__post_init__()


def test_a_model_that_cannot_be_split_is_reported(caplog):
    placement = make_placement(1, jax.devices(), sharded=False, split=True)
    odd = {"w": jnp.ones((81, 81)), "b": jnp.ones(8)}
    placement.warn_if_nothing_is_split(odd)
    assert "sharding='fsdp' splits nothing" in caplog.text and "8 devices" in caplog.text
    caplog.clear()
    placement.warn_if_nothing_is_split(odd | {"v": jnp.ones((64, 64))})
    make_placement(8, jax.devices(), sharded=False, split=True).warn_if_nothing_is_split(odd)
    assert not caplog.text


def test_groups_split_over_their_own_devices():
    """Two seeds on eight devices: four devices each; eight seeds: none are left to split over."""
    x = jnp.ones((2, 64, 128))
    placement = make_placement(2, jax.devices(), sharded=False, split=True)
    assert placement.partitions == 4
    sharding = placement.of_states(x)
    assert sharding.spec == P("seeds", None, "data")
    assert sharding.shard_shape(x.shape) == (1, 64, 32)
    assert not make_placement(8, jax.devices(), sharded=False, split=True).is_split
    assert not make_placement(1, jax.devices()[:1], sharded=False, split=True).is_split


def wide_model():
    """A model some of whose kernels are split over eight devices."""
    return Model(
        encoders={"vector": MLPEncoder((128, 64))},
        fusion=Concat(),
        heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
    )


def train(toy, balancer, optimizer, devices, *, split, seeds=1, **options):
    """Returns the state, as NumPy arrays, and metrics after 20 steps, and the compiled program.

    Half of the devices have no label of the size.
    """
    model, data = wide_model(), toy.batch(320, 0)
    data.labeled["size"][:160] = False
    data = jax.tree.map(jnp.asarray, data)
    indices = np.arange(320).reshape(1, 16, 20).transpose(0, 2, 1).repeat(seeds, 0)
    used = jax.devices()[:devices]
    init = jax.vmap(lambda key: init_state(model, optimizer, balancer, data, key, **options))
    states = jax.jit(init)(jax.random.split(jax.random.key(0), seeds))
    placement = make_placement(seeds, used, sharded=False, split=split)
    states = jax.device_put(states, placement.of_states(states))
    axis_name = None if split else DEVICE_AXIS
    step = make_train_step(model, optimizer, balancer, axis_name=axis_name, **options)
    program = make_train_program(step, replicas=seeds, devices=used, split=split)
    parts = split_over_devices(indices, devices)
    compiled = program.lower(states, data, parts).compile()
    states, metrics = compiled(states, data, parts)
    for x in jax.tree.leaves((states.params, states.opt_state, states.averages)):
        assert x.sharding.is_equivalent_to(placement.of_states(x), x.ndim)
    return jax.tree.map(np.asarray, (states.params, metrics)), compiled


def compare(toy, balancer, optimizer, **options):
    """Compares eight devices with split arrays with one device, whose arrays are whole."""
    (one, one_metrics), whole = train(toy, balancer, optimizer, 1, split=False, **options)
    (many, metrics), parts = train(toy, balancer, optimizer, 8, split=True, **options)
    chex.assert_trees_all_close(many, one, atol=1e-5)
    chex.assert_trees_all_close(metrics, one_metrics, rtol=1e-3, atol=1e-5)
    return whole, parts


def test_the_step_on_split_arrays_is_that_on_whole_ones(toy):
    """The device computes an eighth of the operations, and has an eighth of the large arrays."""
    whole, parts = compare(toy, balance.pcgrad(), optax.sgd(0.02))
    flops = [x.cost_analysis()["flops"] for x in (whole, parts)]
    assert flops[1] < flops[0] / 5  # what is small is computed on every device
    bytes_of_state = [x.memory_analysis().alias_size_in_bytes for x in (whole, parts)]
    assert bytes_of_state[1] < bytes_of_state[0] / 4


BALANCERS = {
    "famo": balance.famo,  # losses before and after the step
    "upgrad": balance.upgrad,  # the Gramian
    "mgda at features": lambda: balance.mgda(wrt="features"),
    "graddrop": balance.graddrop,  # the Jacobian
    "moco": balance.moco,  # the Jacobian, with rows in its state
    "modo": balance.modo,  # parts of the batch
}


@pytest.mark.parametrize("seeds", [1, 2])
def test_steps_between_updates_of_weights_need_no_jacobian_in_groups_either(toy, seeds):
    """Every fourth step runs the other branch; a map over groups would compute both in each."""
    _, parts = compare(toy, balance.nash(every=4), optax.sgd(0.02), seeds=seeds)
    assert " conditional(" in parts.as_text()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])  # two seeds: each trains on a group of four devices
@pytest.mark.parametrize("name", BALANCERS)
def test_every_class_of_balancers_is_right_on_split_arrays(toy, name, seeds):
    compare(toy, BALANCERS[name](), optax.sgd(0.02), seeds=seeds)


def test_inner_products_of_split_rows_are_computed_where_the_parts_are():
    """Only [t, t] products are exchanged; the values are those in float64."""
    rows = np.random.default_rng(0).normal(size=(3, 64, 128)).astype(np.float32)
    mesh = make_group_mesh(jax.devices(), 1)
    sharding = jax.NamedSharding(mesh, P(None, None, DEVICE_AXIS))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        program = jax.jit(gramian, in_shardings=sharding).lower(rows).compile()
    assert "all-gather" not in program.as_text() and "all-reduce" in program.as_text()
    flat = rows.reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(program(rows), flat @ flat.T, atol=bound_difference(64, 64 * 128))


def make_program(step, states, batch, *, replicas):
    """Returns the program of a step on split arrays on eight devices, compiled, and its indices."""
    positions = np.arange(batch.size).reshape(1, 1, -1).repeat(replicas, 0)
    indices = split_over_devices(positions, 8)
    program = make_train_program(step, replicas=replicas, devices=jax.devices(), split=True)
    return program.lower(states, batch, indices).compile(), indices


@pytest.mark.parametrize("seeds", [1, 2])
def test_gradients_of_embeddings_are_summed_where_the_examples_are(seeds):
    """Rows per token are not gathered from all examples: only the gradient of the table is."""
    tables, tokens = jnp.ones((seeds, 30, 512)), np.arange(64 * 5).reshape(64, 5) % 30
    batch = Batch({"text": jnp.asarray(tokens)}, {"text": jnp.ones(64, bool)}, {}, {}, {})

    def step(w, batch):
        rows = batch.inputs["text"]
        gradient = jax.grad(lambda w: jnp.sin(gather_arrays(w)[rows]).sum())(w)
        return w - gradient, {}

    compiled, indices = make_program(step, tables, batch, replicas=seeds)
    assert "64,5,512" not in compiled.as_text()
    counts = np.bincount(tokens.ravel(), minlength=30)
    expected = 1 - np.cos(1) * np.broadcast_to(counts[:, None], (seeds, 30, 512))
    updated = compiled(tables, batch, indices)[0]
    np.testing.assert_allclose(updated, expected, atol=bound_difference(12, 12))


def test_groups_do_not_communicate_to_solve_for_weights():
    """Neither do loops wait for those of other groups, nor are matrices gathered from all groups.

    The minimum-norm point of gradients (a, 0, ...) and (0, b, ...) has the weights b^2, a^2, scaled
    to the sum 1.
    """
    scales, sides = jnp.array([[1.0, 2.0], [3.0, 0.5]]), jnp.eye(2, 4096)
    batch = Batch({"x": jnp.ones((64, 1))}, {"x": jnp.ones(64, bool)}, {}, {}, {})
    method = balance.to_aggregator(balance.mgda(), ("a", "b"))

    def step(state, batch):
        scale, w = state
        rows = split_state(scale[:, None] * sides * batch.inputs["x"].mean())
        return (scale, w - method.update(rows, method.init(w))[0]), {}

    states = scales, jnp.zeros((2, 4096))
    compiled, indices = make_program(step, states, batch, replicas=2)
    text = compiled.as_text()
    exchanged = re.findall(r"= (\S+\]).* (?:all-|reduce-scatter|collective-)\S+\(", text)
    assert exchanged and all(re.search(r"\[1\b", shape) for shape in exchanged)  # of one seed
    updated = compiled(states, batch, indices)[0][1]
    weights = scales[:, ::-1] ** 2 / (scales**2).sum(1, keepdims=True)
    np.testing.assert_allclose(updated[:, :2], -weights * scales, rtol=1e-5)


# Optimizers whose update of a value depends on other values, which may be on other devices.
OPTIMIZERS = {
    "clip and adam": lambda: optax.chain(
        optax.clip_by_global_norm(0.1), optax.adam(1e-3, eps=1e-3)
    ),
    "lamb": lambda: optax.lamb(1e-3),  # a norm per array
    "adafactor": lambda: optax.adafactor(1e-3, min_dim_size_to_factor=32),  # means per row
    "muon": lambda: optax.contrib.muon(1e-3),  # products of matrices
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_see_whole_arrays(toy, name):
    compare(toy, balance.equal(), OPTIMIZERS[name](), ema=0.9)
