"""`Experiment.trainable`: what is frozen has no gradient, no state and no copy per seed."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmjax
from mmjax import balance
from mmjax.auxiliary import Distillation, Teacher
from mmjax.encoders import RecurrentEncoder, Wrap
from mmjax.freezing import complete_variables, split_variables
from mmjax.pretrained import weights
from mmjax.runs.trained import make_trained
from mmjax.summary import summarize_experiment
from mmjax.train.best_variables import evaluate_best, load_best_variables
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.loop import fit
from mmjax.train.steps.state import init_frozen_variables, init_state
from mmjax.train.steps.train_step import make_train_step

TRAINABLE = ("encoders_sequence/*", "sharing/*", "heads_*")
SHARED = ("encoders_sequence/*", "sharing/*")
BALANCERS = {
    "equal": balance.equal,
    "uncertainty": balance.uncertainty,
    "pcgrad": balance.pcgrad,
    "upgrad": balance.upgrad,
    "mgda": balance.mgda,
}
SLOW = pytest.mark.slow


class Normed(nn.Module):
    """Batch norms with parameters and without any, and a layer between."""

    averages: bool | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(momentum=0.8, use_running_average=self.averages, name="first")(x)
        options = {"use_scale": False, "use_bias": False, "use_running_average": self.averages}
        return nn.BatchNorm(momentum=0.8, name="second", **options)(nn.Dense(5)(x))


def normed_model(toy, averages=None):
    encoders = {"vector": Wrap(Normed(averages)), "sequence": RecurrentEncoder(width=5)}
    return toy.model(shared=SHARED).clone(encoders=encoders)


def take_step(model, batch, balancer, optimizer, trainable=None, given=None):
    """Returns the state before and after a step, and the frozen variables."""
    parts = model, optimizer, balancer
    options = {"given": given, "trainable": trainable}
    init = jax.jit(lambda key: init_state(*parts, batch, key, **options))
    frozen = init_frozen_variables(model, batch, **options) if trainable else None
    state = init(jax.random.key(0))
    new, metrics = jax.jit(make_train_step(*parts))(state, batch, frozen)
    return state, new, frozen, metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["pcgrad", *(pytest.param(n, marks=SLOW) for n in BALANCERS if n != "pcgrad")]
)
def test_equals_training_in_which_the_frozen_part_gets_no_updates(toy, name):
    """The slow, obvious way: every gradient is computed, and some updates are set to zero."""
    batch = jax.tree.map(jnp.asarray, toy.batch(24, 1))
    given = {"batch_stats": {"encoders_vector": {"module": {"first": {"mean": jnp.full(6, 0.5)}}}}}
    _, new, frozen, _ = take_step(
        normed_model(toy), batch, BALANCERS[name](), optax.sgd(0.5), TRAINABLE, given
    )

    def label(params):
        return {k: "zero" if k == "encoders_vector" else "sgd" for k in params}

    masked = optax.multi_transform({"sgd": optax.sgd(0.5), "zero": optax.set_to_zero()}, label)
    model = normed_model(toy, averages=True)
    old, obvious, _, _ = take_step(model, batch, BALANCERS[name](), masked, given=given)
    found = complete_variables(new.all_variables, frozen)
    assert set(new.params) == {"encoders_sequence", "sharing", "heads_kind", "heads_size"}
    assert new.variables == {}, "the statistics are frozen, too"
    chex.assert_trees_all_close(found, obvious.all_variables, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(found["batch_stats"], old.variables["batch_stats"])
    moved = new.params["sharing"]["dense_0"]["kernel"] - old.params["sharing"]["dense_0"]["kernel"]
    assert np.abs(moved).max() > 1e-4


def test_the_jacobian_and_the_optimizer_have_what_trains_only(toy):
    batch = jax.tree.map(jnp.asarray, toy.batch(8, 1))
    sizes = {}

    def update(losses, pullback, state, *, key, labeled):
        sizes["rows"] = jax.tree.map(jnp.shape, pullback.jacobian())
        return pullback(jnp.ones(2)), jnp.ones(2), state

    def init(names, shared):
        sizes["shared"] = jax.tree.map(jnp.shape, shared)
        return ()

    balancer = balance.Balancer(init, update)
    state, _, frozen, _ = take_step(toy.model(), batch, balancer, optax.adam(0.1), TRAINABLE)
    for name in ("rows", "shared"):
        paths = jax.tree.leaves_with_path(sizes[name], is_leaf=lambda x: isinstance(x, tuple))
        assert {path[0].key for path, _ in paths} == {"encoders_sequence", "sharing"}
    assert set(state.opt_state[0].mu) == set(state.params)
    assert set(frozen["params"]) == {"encoders_vector"}


def test_parts_are_split_by_module():
    variables = {
        "params": {"a": {"x": 1, "in": {"y": 2}}, "b": {"z": 3}},
        "counters": {"a": {"calls": 4, "in": {"calls": 5}}, "b": {"deep": {"calls": 6}}},
    }
    trained, frozen = split_variables(variables, ["a/in/*"])
    assert trained == {
        "params": {"a": {"in": {"y": 2}}},
        "counters": {"a": {"calls": 4, "in": {"calls": 5}}},
    }
    assert frozen["counters"] == {"b": {"deep": {"calls": 6}}}
    whole = complete_variables(*jax.tree.map(np.asarray, (trained, frozen)))
    assert jax.tree.map(int, whole) == variables
    assert split_variables(variables, None) == (variables, {})


@SLOW
@pytest.mark.parametrize(("seeds", "devices"), [((0,), 8), ((0, 1), 8), ((0, 1), 1)])
def test_seeds_and_devices(toy, tmp_path, seeds_run, seeds, devices):
    options = {"model": normed_model(toy), "balancer": balance.pcgrad(), "epochs": 1}
    experiment = toy.experiment(trainable=TRAINABLE, optimizer=optax.sgd(0.1), **options)
    alone = fit(experiment, tmp_path / "alone", seeds=seeds[-1:], devices=jax.devices()[:1])
    found = fit(experiment, tmp_path / "all", seeds=seeds, devices=jax.devices()[:devices])
    last = jax.tree.map(lambda x: x[-1:], found.state.train.params)
    chex.assert_trees_all_close(last, alone.state.train.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(found.frozen, alone.frozen)
    shape = found.frozen["params"]["encoders_vector"]["module"]["Dense_0"]["kernel"].shape
    assert shape == (6, 5), "one copy for all seeds"


@SLOW
def test_a_run_resumes_evaluates_loads_teaches_and_starts_another(toy, tmp_path):
    one = jax.devices()[:1]
    options = {"model": normed_model(toy), "trainable": TRAINABLE}
    experiment = toy.experiment(epochs=2, **options)
    whole = mmjax.run({"all": lambda: experiment}, workdir=tmp_path, seeds=(0, 1), devices=1)
    result = fit(experiment, tmp_path / "all", seeds=(0, 1), devices=one)
    fit(toy.experiment(epochs=1, **options), tmp_path / "half", seeds=(0, 1), devices=one)
    resumed = fit(experiment, tmp_path / "half", seeds=(0, 1), devices=one)
    chex.assert_trees_all_equal(resumed.state.train.params, result.state.train.params)
    chex.assert_trees_all_equal(resumed.state.best, result.state.best)

    tests = evaluate_best(experiment, tmp_path / "all", seeds=(0, 1), devices=1)
    assert tests == [whole["all"]["seeds"][str(seed)]["test"] for seed in (0, 1)] == result.test
    assert whole["all"]["parameters"]["encoders_vector"] == 6 * 2 + 6 * 5 + 5
    best = load_best_variables(experiment, tmp_path / "all", seeds=(0, 1))
    chex.assert_trees_all_equal(best, result.best)

    trained = mmjax.load(tmp_path, "all", seed=1, experiment=experiment)
    fitted = make_trained(experiment, result.best, (0, 1))
    one_seed = jax.tree.map(lambda x: x[1], result.best)
    chex.assert_trees_all_equal(dict(trained.variables), one_seed)
    batch = toy.batch(9, 5)
    assert trained.predict(batch)["kind"].probabilities.shape == (9, 4)
    assert trained.embed(batch).tasks["kind"].shape == (9, 8)
    assert fitted.predict(batch)["kind"].probabilities.shape == (9, 4)
    assert evaluate_best(experiment, tmp_path / "all", seeds=(0, 1))[1] == pytest.approx(
        trained.evaluate(experiment.data), rel=1e-5
    )

    start = weights(tmp_path / "all", prefix="encoders_vector/", seed=1)
    loaded = start.apply(jax.tree.map(np.zeros_like, one_seed["params"]["encoders_vector"]))
    chex.assert_trees_all_equal(loaded, one_seed["params"]["encoders_vector"])

    params = dict(one_seed)
    teacher = Teacher(experiment.model, params.pop("params"), experiment.data.modalities, params)
    student = toy.model(auxiliary={"soft": Distillation(teacher, features=False, tasks=("kind",))})
    fit(toy.experiment(epochs=1, model=student), tmp_path / "student", devices=one)

    (tmp_path / "all" / "frozen").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match="does not hold the frozen parameters"):
        mmjax.load(tmp_path, "all", experiment=experiment)
    with pytest.raises(ValueError, match="lacks its frozen parameters"):
        evaluate_best(experiment, tmp_path / "all", seeds=(0, 1))


def test_patterns_are_checked_and_the_summary_counts(toy):
    with pytest.raises(ValueError, match=r"'encoder_vector/\*', which matches no parameter"):
        check_experiment(toy.experiment(trainable=("heads_*", "encoder_vector/*")), 1)
    with pytest.raises(ValueError, match="trainable is empty"):
        check_experiment(toy.experiment(trainable=()), 1)
    summary = summarize_experiment(toy.experiment(trainable=TRAINABLE))
    trained = 3 * 20 + 5 * 20 + 20 + 13 * 8 + 8 + 8 * 4 + 4 + 8 + 1
    assert summary.rows[-1].parameters == trained
    assert f"{trained} parameters train, and {6 * 8 + 8} are frozen." in summary.notes
