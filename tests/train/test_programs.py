"""The programs of an experiment before its first step."""

import chex
import jax
import numpy as np
import pytest

from mmjax.train.hardware.compilation import compile_with_options
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule
from mmjax.train.steps.state import init_state

SEEDS = (3, 1)


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 4])
def begun(toy, request):
    """The programs on some devices, the first dispatch and the state that training begins with."""
    programs = Programs(toy.experiment(), SEEDS, jax.devices()[: request.param])
    plan = Schedule(programs.experiment, SEEDS, programs.splits.size("train"))
    dispatch = next(programs.splits.feed("train").chunks(plan.dispatches))
    return programs, dispatch, programs.compile_and_init(*dispatch)


def test_each_replica_begins_with_the_state_of_its_seed(begun):
    programs, _, state = begun
    e = programs.experiment
    plain = jax.jit(
        lambda key: init_state(e.model, e.optimizer, e.balancer, programs.initial.example, key)
    )
    for replica, seed in enumerate(SEEDS):
        wanted = plain(jax.random.key(seed))
        found = jax.tree.map(lambda x, replica=replica: x[replica], state)
        chex.assert_trees_all_close(found.train.params, wanted.params, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(found.best_params, found.train.params)
    assert (np.asarray(state.train.step) == 0).all()


def test_a_state_is_as_was_promised(begun):
    programs, _, state = begun
    chex.assert_trees_all_equal_shapes_and_dtypes(programs.initial.shapes, state)
    for promised, found in zip(
        jax.tree.leaves(programs.initial.shapes), jax.tree.leaves(state), strict=True
    ):
        assert found.sharding.is_equivalent_to(promised.sharding, found.ndim)


def test_beginning_compiles_the_program_that_trains(begun):
    programs, dispatch, state = begun
    (ready,) = programs.compiled.values()
    trained, _ = programs.train(jax.tree.map(jax.numpy.copy, state.train), *dispatch)
    assert list(programs.compiled.values()) == [ready]
    assert (np.asarray(trained.step) == dispatch[1].shape[2]).all()


def test_compiler_options_that_the_installed_xla_lacks_are_left_out():
    lowered = jax.jit(lambda x: 2 * x).lower(1.5)
    level = {"xla_backend_optimization_level": 1}
    compiled = compile_with_options(lowered, level | {"xla_cpu_no_such_option": True})
    assert compiled(1.5) == 3
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_backend_optimization_level"):
        compile_with_options(lowered, {"xla_backend_optimization_level": "high"})


def test_an_experiment_that_is_checked_is_not_checked_again(toy):
    misfit = toy.experiment(modality_dropout={"sound": 0.1})
    with pytest.raises(ValueError, match="modality_dropout names the modality 'sound'"):
        Programs(misfit, SEEDS, jax.devices()[:1])
    Programs(misfit, SEEDS, jax.devices()[:1], checked=True)
