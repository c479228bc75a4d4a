"""The metrics of the gradients against NumPy; off, they cost nothing."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.balance.diagnostics import diagnose_gradients
from mmjax.data.pipeline import split_over_devices
from mmjax.parameters import mark_shared_parameters, partition_params
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.programs import Programs
from mmjax.train.steps.forward import compute_features, compute_predictions, sum_losses
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from tests.tolerance import bound_difference

TASKS = ("a", "b", "c", "d")


def seen(rows, labeled):
    gram = jnp.asarray(rows @ rows.T, jnp.float32)
    return {
        k: np.asarray(v) for k, v in diagnose_gradients(gram, TASKS, jnp.asarray(labeled)).items()
    }


def test_cosines_norms_and_conflicts_of_the_labeled_tasks():
    rows = np.random.default_rng(0).normal(size=(4, 6)) * [[1], [1e-9], [1e9], [0]]
    rows[0] = 1e-9 * rows[2] - rows[0] * 0.1
    computed = seen(rows, [True, True, True, False])
    norms = np.linalg.norm(rows, axis=1)
    pairs = {(i, j): rows[i] @ rows[j] / norms[i] / norms[j] for i in range(3) for j in range(i)}
    for (j, i), cosine in pairs.items():
        np.testing.assert_allclose(
            computed[f"cosine/{TASKS[i]},{TASKS[j]}"], [cosine, 1], atol=1e-5
        )
    for i in range(3):
        np.testing.assert_allclose(computed[f"gradient_norm/{TASKS[i]}"], [norms[i], 1], rtol=1e-5)
    for unlabeled in ("cosine/a,d", "gradient_norm/d"):
        np.testing.assert_array_equal(computed[unlabeled], [0, 0])
    negative = sum(c < 0 for c in pairs.values())
    assert 0 < negative < 3
    np.testing.assert_array_equal(computed["conflicts"], [negative, 3])


def test_the_condition_number_is_over_the_numerical_rank():
    orthonormal = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    for scale in (1e-10, 1.0, 1e10):
        rows = scale * orthonormal @ np.diag([1.0, 1.0, 0.1, 0.0]) @ orthonormal.T
        np.testing.assert_allclose(seen(rows, [True] * 4)["condition"], [100, 1], rtol=1e-3)
    np.testing.assert_array_equal(seen(0 * rows, [True] * 4)["condition"], [0, 0])


@pytest.fixture
def setting(toy):
    model, batch = toy.model(), jax.tree.map(jnp.asarray, toy.batch(16, 0))
    state = jax.jit(lambda k: init_state(model, optax.sgd(0.1), balance.equal(), batch, k))(
        jax.random.key(0)
    )
    return model, batch, state


def hlo(step, *args):
    """The lowered program without its names."""
    return jax.jit(step).lower(*args).as_text(debug_info=False)


def test_off_they_cost_nothing_and_on_they_change_nothing(setting):
    """Off, a gradient is one backward pass; on, the update is the same."""
    model, batch, state = setting
    optimizer, balancer = optax.sgd(0.1), balance.equal()
    off = make_train_step(model, optimizer, balancer, diagnostics=False)
    on = make_train_step(model, optimizer, balancer, diagnostics=True)
    flops = [jax.jit(s).lower(state, batch).cost_analysis()["flops"] for s in (off, on)]
    assert flops[0] < 0.8 * flops[1]
    assert hlo(off, state, batch) == hlo(make_train_step(model, optimizer, balancer), state, batch)
    assert "syevd" not in hlo(off, state, batch) and "syevd" in hlo(on, state, batch)
    (plain, fewer), (same, more) = jax.jit(off)(state, batch), jax.jit(on)(state, batch)
    chex.assert_trees_all_close(plain.params, same.params, rtol=1e-6, atol=bound_difference(50))
    extra = {"cosine/kind,size", "conflicts", "condition"}
    assert set(more) - set(fewer) == extra | {"gradient_norm/kind", "gradient_norm/size"}


def test_a_balancer_shares_its_jacobian_with_them(setting):
    """For a Gramian method they cost next to nothing."""
    model, batch, state = setting
    steps = [
        make_train_step(model, optax.sgd(0.1), balance.pcgrad(), diagnostics=d)
        for d in (False, True)
    ]
    flops = [jax.jit(s).lower(state, batch).cost_analysis()["flops"] for s in steps]
    assert flops[1] < 1.2 * flops[0]


@pytest.mark.slow
def test_they_are_those_of_the_shared_parameters_on_any_number_of_devices(setting):
    model, batch, state = setting
    optimizer, balancer = optax.sgd(0.1), balance.equal()
    options = {"compute_dtype": "float32", "train": False}

    def losses(params):
        variables = {"params": params}
        features, _ = compute_features(model, variables, batch, **options)
        predictions, _ = compute_predictions(model, variables, features, **options)
        counts = jnp.stack([batch.labeled[t].sum() for t in ("kind", "size")])
        return sum_losses(model, predictions, batch, ("kind", "size")) / counts

    rows = jax.jit(jax.jacrev(losses))(state.params)
    rows = partition_params(rows, mark_shared_parameters(model, state.params))[0]
    flat = np.concatenate([np.reshape(x, (2, -1)) for x in jax.tree.leaves(rows)], axis=1)
    norms = np.linalg.norm(flat, axis=1)
    step = make_train_step(model, optimizer, balancer, diagnostics=True, axis_name=DEVICE_AXIS)
    program = make_train_program(step, replicas=1, devices=jax.devices()[:4])
    states = jax.tree.map(lambda x: x[None], state)
    _, metrics = program(states, batch, split_over_devices(np.arange(16).reshape(1, 1, 16), 4))
    got = {k: float(total[0, 0] / count[0, 0]) for k, (total, count) in metrics.items()}
    assert got["gradient_norm/kind"] == pytest.approx(norms[0], rel=1e-4)
    assert got["gradient_norm/size"] == pytest.approx(norms[1], rel=1e-4)
    cosine = flat[0] @ flat[1] / norms.prod()
    assert got["cosine/kind,size"] == pytest.approx(cosine, abs=1e-5)
    assert got["conflicts"] == (cosine < 0)


@pytest.mark.parametrize("diagnostics", [False, True])
def test_an_experiment_asks_for_them(toy, diagnostics):
    """Its training program, traced only, gives their metrics."""
    e, batch = toy.experiment(diagnostics=diagnostics), jax.tree.map(jnp.asarray, toy.batch(16, 0))
    start = functools.partial(init_state, e.model, e.optimizer, e.balancer, batch)
    state = jax.eval_shape(jax.vmap(start), jax.random.key(0)[None])
    programs = Programs(e, (0,), jax.devices()[:1])
    indices = np.zeros((1, 1, 2, 16), np.int32)
    carry = programs.values, state
    _, metrics = jax.eval_shape(programs.train_program, carry, batch, indices)
    names = {"cosine/kind,size", "conflicts", "condition", "gradient_norm/kind"}
    assert names & set(metrics) == (names if diagnostics else set())
