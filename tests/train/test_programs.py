"""The programs of an experiment before its first step."""

import chex
import jax
import jax.numpy as jnp
import pytest

from mmjax.train.plan import Plan
from mmjax.train.programs import Programs
from mmjax.train.step import init_state

SEEDS = (3, 1)


@pytest.fixture
def programs(toy, devices):
    return Programs(toy.experiment(), SEEDS, jax.devices()[:devices])


@pytest.fixture
def dispatch(programs):
    plan = Plan(programs.experiment, SEEDS, programs.splits.size("train"))
    return next(programs.splits.feed("train").chunks(plan.dispatches))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_begin_gives_each_lane_the_state_of_its_seed(programs, dispatch):
    state = programs.begin(*dispatch)
    e, example = programs.experiment, jax.tree.map(jnp.asarray, programs.example)
    for lane, seed in enumerate(SEEDS):
        wanted = init_state(e.model, e.optimizer, e.balancer, example, jax.random.key(seed))
        found = jax.tree.map(lambda x, lane=lane: x[lane], state)
        chex.assert_trees_all_close(found.train.params, wanted.params, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_equal(found.best_params, found.train.params)
    chex.assert_trees_all_equal(state, programs.init())


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_state_is_as_was_promised(programs, dispatch):
    state = programs.begin(*dispatch)
    chex.assert_trees_all_equal_shapes_and_dtypes(programs.abstract_state, state)
    for promised, found in zip(
        jax.tree.leaves(programs.abstract_state), jax.tree.leaves(state), strict=True
    ):
        assert found.sharding.is_equivalent_to(promised.sharding, found.ndim)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_begin_compiles_the_program_that_trains(programs, dispatch):
    state = programs.begin(*dispatch)
    (ready,) = programs.compiled.values()
    trained, _ = programs.train(state.train, *dispatch)
    assert list(programs.compiled.values()) == [ready]
    assert int(trained.step[0]) == dispatch[1].shape[2]
