"""Averages of parameters and evaluation parameters, against slow recursions in float64."""

import shutil

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance, load
from mmjax.encoders import MLPEncoder, Wrap
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.optim import per_path
from mmjax.train.best_variables import load_best, load_best_variables
from mmjax.train.checkpoint import hash_arrays
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.run_arms import run
from mmjax.train.steps.averages import (
    compute_eval_params,
    compute_eval_variables,
    init_averages,
    update_averages,
)
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import TrainState


def make_small_model(**options):
    parts = {
        "encoders": {"vector": Wrap(nn.BatchNorm(momentum=0.8))},
        "fusion": Concat(),
        "heads": {"kind": Classification(4)},
    }
    return Model(**(parts | options))


def take_steps(model, batches, optimizer, **options):
    """Returns the state before the first step and after each."""
    batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
    parts = model, optimizer, balance.equal()
    init = jax.jit(lambda key: init_state(*parts, batches[0], key, ema=options.get("ema")))
    states, step = [init(jax.random.key(0))], jax.jit(make_train_step(*parts, **options))
    for batch in batches:
        states.append(step(states[-1], batch)[0])
    return states


def average_slowly(trees, decay):
    """sum_i decay^(t-i) x_i / sum_i decay^(t-i), in float64."""
    powers = np.float64(decay) ** np.arange(len(trees))[::-1]
    return jax.tree.map(
        lambda *x: np.tensordot(powers, np.array(x, np.float64), 1) / powers.sum(), *trees
    )


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_averages_are_those_of_a_float64_recursion(toy, decay):
    """Parameters and batch statistics alike; the initial values do not count."""
    batches = [toy.batch(16, seed) for seed in range(12)]
    states = take_steps(make_small_model(), batches, optax.sgd(0.3), ema=decay)
    assert states[0].averages.weight == 0
    assert states[1].variables["batch_stats"]
    for t in (1, 2, 5, 12):
        expected = average_slowly([s.all_variables for s in states[1 : t + 1]], decay)
        # float32(0.9999) differs from 0.9999 by 2e-8: 2e-4 of the share of one step.
        chex.assert_trees_all_close(
            compute_eval_variables(states[t]), expected, rtol=1e-5, atol=1e-6
        )
    plain = take_steps(make_small_model(), batches, optax.sgd(0.3))
    chex.assert_trees_all_equal(plain[-1].all_variables, states[-1].all_variables)
    assert plain[-1].averages is None


def test_low_precision_is_averaged_in_float32():
    """In bfloat16 alone, steps of 1e-3 of the difference would be lost."""
    state = TrainState(0, {"w": jnp.zeros(1, jnp.bfloat16)}, {"n": jnp.int32(0)}, (), (), None)
    state = state._replace(averages=init_averages(state.all_variables))
    values = [0.0] * 200 + [1.0] * 200
    for i, value in enumerate(values):
        new = {"w": jnp.full(1, value, jnp.bfloat16)}
        state = update_averages(state._replace(params=new, variables={"n": jnp.int32(i)}), 0.99)
    expected = average_slowly(values, 0.99)
    found = compute_eval_variables(state)
    np.testing.assert_allclose(state.averages.variables["params"]["w"], expected, rtol=1e-4)
    assert found["params"]["w"].dtype == jnp.bfloat16
    assert found["n"] == 399  # integers are not averaged


def test_micro_batches_of_an_accumulation_do_not_count(toy):
    batches = [toy.batch(16, seed) for seed in range(6)]
    model = make_small_model(encoders={"vector": MLPEncoder((8,))})
    optimizer = optax.MultiSteps(optax.sgd(0.3), 3)
    states = take_steps(model, batches, optimizer, ema=0.5)
    expected = average_slowly([states[3].params, states[6].params], 0.5)
    found = compute_eval_variables(states[6])["params"]
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def run_schedule_free(gradients, start, rate, b1):
    """Defazio et al. (2024), equations 2 to 4, with equal weights: returns (y, x) in float64."""
    x = z = np.float64(start)
    for t, gradient in enumerate(gradients):
        z = z - rate * np.float64(gradient)
        x = x + (z - x) / (t + 1)
    return (1 - b1) * z + b1 * x, x


@pytest.mark.parametrize("place", ["alone", "chain", "per_path"])
def test_schedule_free_is_evaluated_at_its_average(place):
    free = optax.contrib.schedule_free_sgd(0.1, b1=0.8)
    optimizer = {
        "alone": free,
        "chain": optax.chain(optax.identity(), free),
        "per_path": per_path({"a": free, "b": optax.sgd(0.1)}),
    }[place]
    rng = np.random.default_rng(0)
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    gradients = [{"a": rng.normal(size=3), "b": rng.normal(size=2)} for _ in range(7)]
    state, start = optimizer.init(params), params
    for gradient in gradients:
        gradient = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    found = compute_eval_params(state, params)
    for name in found:
        y, x = run_schedule_free([g[name] for g in gradients], start[name], 0.1, 0.8)
        if place == "per_path" and name == "b":
            y = x = start[name] - 0.1 * sum(g[name] for g in gradients)
        np.testing.assert_allclose(params[name], y, atol=1e-5)
        np.testing.assert_allclose(found[name], x, atol=1e-5)


@pytest.mark.slow
def test_eight_devices_average_what_one_does(toy):
    model, data = make_small_model(), toy.batch(320, 0)
    parts = model, optax.sgd(0.05), balance.equal()
    step = make_train_step(*parts, ema=0.9, axis_name=DEVICE_AXIS)
    states = []
    for devices in (1, 8):
        first = init_state(*parts, jax.tree.map(jnp.asarray, data), jax.random.key(0), ema=0.9)
        program = make_train_program(step, replicas=1, devices=jax.devices()[:devices])
        indices = np.arange(320).reshape(20, devices, -1).transpose(1, 0, 2)[:, None]
        first = jax.tree.map(lambda x: x[None], first)
        states.append(program(first, data, indices)[0])
    chex.assert_trees_all_close(states[0].averages, states[1].averages, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ema", "schedule-free"])
def test_a_run_evaluates_stores_resumes_and_loads_its_averages(toy, tmp_path, kind):
    options = {
        "ema": {"ema": 0.8},
        "schedule-free": {"optimizer": optax.contrib.schedule_free_adamw(1e-2)},
    }[kind]
    experiment = toy.experiment(model=make_small_model(), steps_per_dispatch=8, **options)
    result = run({"all": lambda: experiment}, workdir=tmp_path / "whole", devices=1)["all"]
    directory = tmp_path / "whole" / "all"
    averaged = load_best_variables(experiment, directory)
    raw = load_best_variables(experiment, directory, averaged=False)
    one = result["seeds"]["0"]
    assert (
        hash_arrays(jax.tree.map(lambda x: np.asarray(x[0]), averaged["params"]))
        == (one["best_params_sha256"])
    )
    assert hash_arrays(averaged["params"]) != hash_arrays(raw["params"])
    chex.assert_trees_all_equal(load_best(experiment, directory, averaged=False), raw["params"])
    assert one["best_step"] == 24  # so the raw parameters are the last ones
    assert (
        hash_arrays(jax.tree.map(lambda x: np.asarray(x[0]), raw["params"]))
        == (one["last_params_sha256"])
    )
    if kind == "schedule-free":
        chex.assert_trees_all_equal(averaged["batch_stats"], raw["batch_stats"])

    for is_averaged, variables in ((True, averaged), (False, raw)):
        trained = load(directory, experiment=experiment, averaged=is_averaged)
        chex.assert_trees_all_equal(
            dict(trained.variables), jax.tree.map(lambda x: np.asarray(x[0]), variables)
        )
        metrics = trained.evaluate(experiment.data)
        same = metrics["kind/loss"] == pytest.approx(one["test"]["kind/loss"], rel=1e-5)
        assert same == is_averaged

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    again = tmp_path / "again" / "all"
    shutil.rmtree(again / "checkpoints" / "24")
    (again / "result.json").unlink()
    resumed = run({"all": lambda: experiment}, workdir=again.parent, devices=1, resume=True)
    assert resumed["all"]["seeds"] == result["seeds"]
    log = "metrics-seed0.jsonl"
    assert (again / log).read_bytes() == (directory / log).read_bytes()


@pytest.mark.parametrize("ema", [0.0, 1.0, -0.1, float("nan")])
def test_other_decays_are_refused(toy, ema):
    with pytest.raises(ValueError, match=r"ema is .*; it must be between 0 and 1"):
        toy.experiment(ema=ema)
