"""Parts of a batch: their weighted mean is the whole batch, and no pass is made twice."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax import balance
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.inspection.flops import count_flops
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.train.steps.batch_parts import differentiate_parts
from mmjax.train.steps.state import init_state
from mmjax.train.steps.step_losses import StepSettings, differentiate_batch
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

SIZE = 8
WEIGHTS = np.linspace(0.2, 3.0, SIZE, dtype=np.float32)


def make_batch():
    """Task b has labels in every second example only: the second half of the batch has none."""
    rng = np.random.default_rng(0)
    yes, every_second = np.ones(SIZE, bool), np.arange(SIZE) % 2 == 0
    return jax.tree.map(
        jnp.asarray,
        Batch(
            inputs={"x": rng.normal(size=(SIZE, 5)).astype(np.float32)},
            present={"x": rng.random(SIZE) < 0.8},
            lengths={},
            targets={
                "a": rng.integers(0, 3, SIZE).astype(np.int32),
                "b": rng.normal(size=SIZE).astype(np.float32),
                "c": rng.normal(size=SIZE).astype(np.float32),
            },
            labeled={"a": rng.random(SIZE) < 0.7, "b": every_second, "c": yes},
            weights={"c": WEIGHTS},
        ),
    )


def make_model(dropout=0.0):
    return Model(
        encoders={"x": MLPEncoder((6,))},
        fusion=Concat(),
        sharing=HardSharing((4,), dropout=dropout),
        heads={"a": Classification(3), "b": Regression(), "c": Regression()},
    )


def differentiate(model, batch, parts):
    state = init_state(model, optax.sgd(0.1), balance.modo(), batch, jax.random.key(1))
    settings = StepSettings(model, "float32", None, None)
    call = functools.partial(differentiate_batch, settings)
    if parts:
        call = functools.partial(differentiate_parts, settings, parts)
    return call(state.params, state.variables, batch, jax.random.key(2), None)


def test_the_mean_of_the_parts_is_the_whole_batch():
    """Losses and every kind of gradient; each part is that of its examples alone."""
    model, batch, weights = make_model(), make_batch(), jnp.array([0.3, 2.0, -1.0])

    def evaluate(of_batch):
        p = of_batch.pullback
        gradients = p(weights), p.shared(weights), p.task_specific(weights)
        return of_batch.losses, of_batch.counts, gradients, p.jacobian(), p.feature_gram()

    @jax.jit
    def compute():
        joined = differentiate(model, batch, 2)
        halves = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in range(2)]
        alone = [differentiate(model, half, 0).pullback.jacobian() for half in halves]
        parts = [part.jacobian() for part in joined.pullback.parts]
        return evaluate(joined), evaluate(differentiate(model, batch, 0)), parts, alone

    joined, whole, parts, alone = compute()
    np.testing.assert_array_equal(whole[1][1:], [SIZE / 2, WEIGHTS.sum()])
    chex.assert_trees_all_close(joined, whole, rtol=2e-5, atol=2e-6)
    chex.assert_trees_all_close(parts, alone, rtol=2e-5, atol=2e-6)
    assert not any(np.any(rows[1]) for rows in jax.tree.leaves(parts[1]))  # no label of task b


def test_parts_drop_different_units():
    """Both halves hold the same examples, and differ by the noise of dropout alone."""
    batch = jax.tree.map(lambda x: jnp.repeat(x[:4], 2, axis=0), make_batch())

    @jax.jit
    def compute():
        parts = differentiate(make_model(dropout=0.5), batch, 2).pullback.parts
        return [jax.tree.leaves(part.jacobian())[0] for part in parts]

    one, two = compute()
    assert not np.allclose(one, two)


def test_two_samples_cost_as_much_as_one_jacobian():
    """On wide layers, where the solvers and the optimizer cost nothing."""
    model, batch, optimizer = make_model(), make_batch(), optax.sgd(0.1)
    model = model.clone(encoders={"x": MLPEncoder((256, 256))})

    def count(balancer):
        parts = model, optimizer, balancer, batch
        state = jax.eval_shape(lambda key: init_state(*parts, key), jax.random.key(0))
        return count_flops(make_train_step(model, optimizer, balancer), state, batch)

    assert count(balance.modo()) < 1.15 * count(balance.moco())
