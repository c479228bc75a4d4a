"""Variables beside parameters: batch statistics and others, through the steps and a run."""

import shutil

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.auxiliary import Distillation, Teacher
from mmjax.data.pipeline import split_over_devices
from mmjax.data.sampling.batch_order import make_train_indices
from mmjax.encoders import RecurrentEncoder, Wrap
from mmjax.fusion import Concat, Late
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing, TaskSpecific
from mmjax.summary import summarize_model
from mmjax.train.best_variables import evaluate_best, load_best, load_best_variables
from mmjax.train.checkpoint import hash_arrays
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.loop import fit
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from tests.tolerance import bound_difference

MOMENTUM = 0.8
SLOW = pytest.mark.slow


class NormedSharing(nn.Module):
    """A batch norm on what all tasks share, and the counter below."""

    @nn.compact
    def __call__(self, x, tasks, *, train):
        norm = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM)
        y = nn.tanh(norm(nn.Dense(6)(x)))
        return dict.fromkeys(tasks, count_calls(self, y, train))


class NormedSteps(nn.Module):
    """A batch norm over examples and time steps, and a layer after it."""

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(5)(nn.BatchNorm(momentum=MOMENTUM, name="norm")(x)))


class CountingRegression(Regression):
    """A head that counts the training steps."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return count_calls(self, self.scale * nn.Dense(1)(x)[:, 0], train)


class Magnitude(nn.Module):
    """An objective that counts the training steps, and calls for the heads' predictions."""

    @nn.compact
    def __call__(self, seen, predictions, batch, *, train, gather):
        squares = count_calls(self, predictions["size"] ** 2, train)
        return 0.01 * squares.sum(), jnp.asarray(len(squares), jnp.float32)

    @nn.nowrap
    def check(self, *args):
        pass


def count_calls(module, y, train):
    """Keeps an integer, and a number that depends on the batch, in collections of other names."""
    calls = module.variable("counters", "calls", jnp.zeros, (), jnp.int32)
    mean = module.variable("moments", "mean", jnp.zeros, ())
    if train:
        calls.value += 1
        mean.value = 0.5 * mean.value + 0.5 * jax.lax.stop_gradient(y.astype(jnp.float32)).mean()
    return y


def make_model(**options):
    parts = {
        "encoders": {
            "vector": Wrap(nn.BatchNorm(momentum=MOMENTUM)),
            "sequence": Wrap(NormedSteps()),
        },
        "fusion": Concat(),
        "sharing": NormedSharing(),
        "heads": {"kind": Classification(4), "size": CountingRegression(mean=0.0, scale=1.0)},
    }
    return Model(**(parts | options))


def start(model, batch, optimizer, balancer, seed=0):
    example = jax.tree.map(jnp.asarray, batch)
    init = jax.jit(lambda key: init_state(model, optimizer, balancer, example, key))
    return init(jax.random.key(seed))


def on_device(batch):
    return jax.tree.map(jnp.asarray, batch)


def get_statistics(state, part, *names):
    found = state.variables["batch_stats"][part]
    for name in names:
        found = found[name]
    return found


def apply_dense(params, x):
    return x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)


def take_steps(model, batches, balancer=None, optimizer=None, **options):
    """Returns the state before the first step and after each."""
    optimizer, balancer = optimizer or optax.sgd(0.05), balancer or balance.equal()
    states = [start(model, batches[0], optimizer, balancer)]
    step = jax.jit(make_train_step(model, optimizer, balancer, **options))
    for batch in batches:
        states.append(step(states[-1], on_device(batch))[0])
    return states


@pytest.mark.slow
@pytest.mark.parametrize("balancer", ["equal", "pcgrad"])
def test_eight_devices_give_the_parameters_and_statistics_of_one(toy, balancer):
    """20 SGD steps; modalities, time steps and labels are missing, on some devices all of them."""
    model, data = make_model(), toy.batch(320, 0)
    data.present["vector"][:40] = False
    data.present["sequence"][:40] = True
    data.labeled["size"][:40] = False
    optimizer, chosen = optax.sgd(0.05, momentum=0.9), getattr(balance, balancer)()
    indices = np.arange(320).reshape(1, 8, 20, 2).transpose(0, 2, 1, 3).reshape(1, 20, 16)
    step = make_train_step(model, optimizer, chosen, axis_name=DEVICE_AXIS)
    states, begun = [], start(model, data, optimizer, chosen)
    for n in (1, 8):
        state = jax.tree.map(lambda x: x[None], begun)
        program = make_train_program(step, replicas=1, devices=jax.devices()[:n])
        states.append(program(state, on_device(data), split_over_devices(indices, n))[0])
    one, many = states
    chex.assert_trees_all_close(many.params, one.params, atol=2e-5)
    chex.assert_trees_all_close(many.variables, one.variables, rtol=2e-5, atol=2e-5)
    assert many.variables["counters"]["sharing"]["calls"] == 20


def test_running_averages_are_those_of_the_rows_that_are_there(toy):
    """The same in float64, example by example; absent ones and padding hold NaN."""
    batches = [toy.batch(24, seed) for seed in range(3)]
    means = {"vector": np.zeros(6), "sequence": np.zeros(3)}
    variances = {"vector": np.ones(6), "sequence": np.ones(3)}
    for batch in batches:
        rows = {
            "vector": [
                x for x, p in zip(batch.inputs["vector"], batch.present["vector"], strict=True) if p
            ],
            "sequence": [
                x
                for steps, p, n in zip(
                    batch.inputs["sequence"],
                    batch.present["sequence"],
                    batch.lengths["sequence"],
                    strict=True,
                )
                if p
                for x in steps[:n]
            ],
        }
        for m in rows:
            values = np.asarray(rows[m], np.float64)
            means[m] = MOMENTUM * means[m] + (1 - MOMENTUM) * values.mean(0)
            variances[m] = MOMENTUM * variances[m] + (1 - MOMENTUM) * values.var(0)
            batch.inputs[m][~batch.present[m]] = np.nan
        for steps, n in zip(batch.inputs["sequence"], batch.lengths["sequence"], strict=True):
            steps[n:] = np.nan
    states = take_steps(make_model(), batches)
    for m, names in (("vector", ["module"]), ("sequence", ["module", "norm"])):
        norm = get_statistics(states[-1], f"encoders_{m}", *names)
        np.testing.assert_allclose(norm["mean"], means[m], rtol=1e-5, atol=bound_difference(100))
        np.testing.assert_allclose(norm["var"], variances[m], rtol=1e-5)
    chex.assert_tree_all_finite(states[-1].params)


@pytest.mark.slow
def test_evaluation_uses_running_averages_and_leaves_them(toy):
    """An example's prediction does not depend on its batch, nor on whether others are there."""
    model, batch = make_model(), toy.batch(24, 3)
    state = take_steps(model, [toy.batch(24, seed) for seed in range(2)])[-1]
    predict = jax.jit(
        lambda *inputs: model.apply(state.all_variables, *inputs, train=False),
    )
    together = predict(*on_device(batch)[:3])
    few = predict(*jax.tree.map(lambda x: x[:3], on_device(batch)[:3]))
    for task, value in few.items():
        np.testing.assert_allclose(value, together[task][:3], rtol=1e-5, atol=1e-6)
    norm = jax.device_get(get_statistics(state, "encoders_vector", "module"))
    scale = jax.device_get(state.params["encoders_vector"]["module"])
    _, seen = model.apply(
        state.all_variables, *on_device(batch)[:3], train=False, method="represent_and_record"
    )
    present = batch.present["vector"]
    expected = (batch.inputs["vector"] - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
    expected = (expected * scale["scale"] + scale["bias"])[present]
    found = seen[0].tokens["vector"].values[present, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    statistics = make_eval_step(model)(state.all_variables, on_device(batch))
    logits = np.asarray(together["kind"])[batch.labeled["kind"]]
    right = np.argmax(logits, -1) == batch.targets["kind"][batch.labeled["kind"]]
    accuracy = model.heads["kind"].summary(jax.device_get(statistics["kind"]))["accuracy"]
    assert accuracy == pytest.approx(right.mean())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: balance.uncertainty(optax.sgd(0.1)), id="losses", marks=SLOW),
        pytest.param(balance.pcgrad, id="gramian", marks=SLOW),
        pytest.param(balance.gradnorm, id="parameters", marks=SLOW),
        pytest.param(balance.modo, id="parts"),
        pytest.param(balance.famo, id="after", marks=SLOW),
    ],
)
def test_a_step_updates_every_variable_once_under_any_balancer(toy, make):
    """Those that differentiate parts of the batch, or evaluate the losses again, too."""
    model = make_model(auxiliary={"magnitude": Magnitude()})
    batch = toy.batch(16, 0)
    plain = take_steps(model, [batch])[-1].variables
    state = take_steps(model, [batch], make())[-1]
    calls = jax.tree.leaves(state.variables["counters"])
    assert len(calls) == 3 and all(c == 1 for c in calls)
    chex.assert_trees_all_close(state.variables, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_copies_of_a_backbone_have_statistics_of_their_own(toy):
    batch = toy.batch(24, 0)
    encoders = {"vector": Wrap(nn.BatchNorm(momentum=MOMENTUM)), "sequence": RecurrentEncoder()}
    model = make_model(encoders=encoders, sharing=TaskSpecific())
    states = take_steps(model, [batch, batch])
    rows = batch.inputs["vector"][batch.present["vector"]].astype(np.float64)
    norm = get_statistics(states[-1], "own_encoders_vector", "module")
    assert norm["mean"].shape == (2, 6)
    for copy in np.asarray(norm["mean"]):
        np.testing.assert_allclose(copy, rows.mean(0) * (1 - MOMENTUM**2), atol=1e-5)
    assert "encoders_vector" not in states[-1].variables["batch_stats"]


@pytest.mark.slow
def test_a_branch_of_late_fusion_has_statistics_of_its_examples(toy):
    batch = toy.batch(24, 0)
    model = make_model(fusion=Late(6))
    before, after = take_steps(model, [batch])
    present = batch.present["vector"]
    rows = batch.inputs["vector"][present].astype(np.float64)
    rows = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    rows = np.maximum(apply_dense(before.params["fusion"]["project_vector"], rows), 0)
    rows = apply_dense(before.params["branch_sharing_vector"]["Dense_0"], rows)
    norm = get_statistics(after, "branch_sharing_vector", "BatchNorm_0")
    np.testing.assert_allclose(norm["mean"], rows.mean(0) * (1 - MOMENTUM), atol=1e-5)
    np.testing.assert_allclose(norm["var"], 0.8 + 0.2 * rows.var(0), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("seeds_run")
def test_a_program_of_seeds_equals_each_alone(toy):
    model, data, seeds = make_model(), toy.batch(64, 0), (5, 0)
    optimizer, balancer = optax.sgd(0.05), balance.equal()
    step = make_train_step(model, optimizer, balancer, axis_name=DEVICE_AXIS)
    begun = {s: start(model, data, optimizer, balancer, s) for s in seeds}

    def train(some):
        states = jax.tree.map(lambda *x: jnp.stack(x), *(begun[s] for s in some))
        program = make_train_program(step, replicas=len(some), devices=jax.devices()[:1])
        indices = split_over_devices(make_train_indices(some, 64, 8, 0, 8), 1)
        state = program(states, on_device(data), indices)[0]
        return state.all_variables

    together = train(seeds)
    for i, seed in enumerate(seeds):
        alone = jax.tree.map(lambda x: x[0], train([seed]))
        one = jax.tree.map(lambda x, i=i: x[i], together)
        chex.assert_trees_all_close(one, alone, rtol=1e-5, atol=1e-5)


def test_a_modality_that_no_example_has_leaves_its_statistics(toy):
    batch = toy.batch(16, 0)
    batch.present["vector"][:], batch.present["sequence"][:] = False, True
    batch.inputs["vector"][:] = np.nan
    before, after = take_steps(make_model(), [batch])
    chex.assert_trees_all_equal(
        *(get_statistics(s, "encoders_vector", "module") for s in (before, after))
    )
    chex.assert_tree_all_finite(after.all_variables)


@pytest.mark.slow
def test_frozen_statistics_stay_and_half_precision_keeps_them_in_float32(toy):
    frozen = make_model(
        encoders={
            "vector": Wrap(nn.BatchNorm(use_running_average=True)),
            "sequence": Wrap(NormedSteps()),
        }
    )
    before, after = take_steps(frozen, [toy.batch(16, 0)], compute_dtype="bfloat16")
    same, changed = "encoders_vector", "encoders_sequence"
    chex.assert_trees_all_equal(*(get_statistics(s, same) for s in (before, after)))
    assert (before.params[same]["module"]["scale"] != after.params[same]["module"]["scale"]).any()
    means = [get_statistics(s, changed, "module", "norm", "mean") for s in (before, after)]
    assert (means[0] != means[1]).all()
    chex.assert_trees_all_equal_dtypes(before, after)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(after.variables["batch_stats"]))


@pytest.mark.slow
def test_a_teachers_statistics_stay_while_a_student_trains(toy):
    batch = toy.batch(16, 0)
    teacher_model = make_model()
    variables = jax.device_get(take_steps(teacher_model, [batch])[-1].all_variables)
    params = variables.pop("params")
    teacher = Teacher(teacher_model, params, toy.dataset().modalities, variables)
    objective = Distillation(teacher, features=False, tasks=("kind",))
    student = make_model(auxiliary={"imitate": objective})
    optimizer, balancer = optax.sgd(0.0), balance.equal()
    state = start(student, batch, optimizer, balancer)
    state = state._replace(**on_device({"params": params, "variables": variables}))
    _, metrics = jax.jit(make_train_step(student, optimizer, balancer))(state, on_device(batch))
    told = jax.nn.log_softmax(
        teacher_model.apply(teacher.all_variables, *on_device(batch)[:3], train=False)["kind"] / 2.0
    )
    student_logits, _ = student.apply(
        state.all_variables,
        *on_device(batch)[:3],
        train=True,
        mutable=["batch_stats", "counters", "moments"],
    )
    own = jax.nn.log_softmax(student_logits["kind"] / 2.0)
    expected = (jnp.exp(told) * (told - own)).sum(-1).mean() * 4.0
    total, count = metrics["loss/imitate"]
    np.testing.assert_allclose(total / count, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def done(toy, tmp_path_factory):
    """A run of two seeds whose best step is not the last for every seed."""
    directory = tmp_path_factory.mktemp("run")
    experiment = toy.experiment(
        model=make_model(), optimizer=optax.adam(0.1), monitor="kind/accuracy"
    )
    return experiment, directory, fit(experiment, directory, seeds=(0, 1))


@pytest.mark.slow
def test_a_run_keeps_the_best_statistics_and_resumes_to_the_same_bits(done, tmp_path):
    experiment, directory, whole = done
    shutil.copytree(directory, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "24")
    again = fit(experiment, tmp_path / "again", seeds=(0, 1))
    assert hash_arrays(jax.device_get(again.state)) == hash_arrays(jax.device_get(whole.state))
    assert (again.validation, again.test) == (whole.validation, whole.test)
    calls = whole.state.best_variables["counters"]["sharing"]["calls"]
    np.testing.assert_array_equal(calls, whole.state.best_step)
    assert evaluate_best(experiment, directory, seeds=(0, 1)) == whole.test
    best = load_best_variables(experiment, directory, seeds=(0, 1))
    chex.assert_trees_all_equal(best, whole.state.best)
    chex.assert_trees_all_equal(load_best(experiment, directory, seeds=(0, 1)), best["params"])


def test_the_summary_counts_parameters_alone(toy):
    rows, _ = summarize_model(make_model(), toy.batch(4, 0))
    parameters = {row.part: row.parameters for row in rows}
    assert parameters["encoders.vector"] == 2 * 6  # scale and bias, not the two averages
    assert parameters["encoders.sequence"] == 2 * 3 + 3 * 5 + 5


class Shortened(nn.Module):
    """Halves the time steps before its batch norm, and is one vector."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm()(x[:, ::2]).mean(axis=1)


class Growing(nn.Module):
    """Keeps what it has seen, longer with every step."""

    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("memory", "seen", lambda: x[:1])
        if train:
            seen.value = jnp.concatenate([seen.value, x[:1]])
        return x


@pytest.mark.parametrize(
    ("part", "module", "message"),
    [
        ("vector", nn.BatchNorm(use_running_average=False), "leave the argument out"),
        ("sequence", Shortened(), "pass the BatchNorm a `mask`"),
        ("vector", Growing(), "Only variables of constant shapes"),
    ],
)
def test_what_cannot_be_carried_is_refused(toy, part, module, message):
    model = make_model()
    model = model.clone(encoders={**model.encoders, part: Wrap(module)})
    with pytest.raises(ValueError, match=message):
        take_steps(model, [toy.batch(8, 0)])


def test_a_model_without_variables_carries_none(toy):
    state = take_steps(toy.model(sharing=HardSharing((4,))), [toy.batch(8, 0)])[-1]
    assert state.variables == {}
