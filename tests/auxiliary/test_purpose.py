"""Objectives do what they are for, on data where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.auxiliary import (
    CORAL,
    ELBO,
    MMD,
    Decoders,
    DeepCCA,
    InfoNCE,
    Reconstruction,
    Sown,
    cca,
    coral_distance,
)
from mmjax.auxiliary import mmd as discrepancy
from mmjax.encoders import Features, MLPEncoder
from mmjax.fusion import Mean, ProductOfExperts
from mmjax.heads import Regression
from mmjax.model import Model
from mmjax.sharing import DSelectK, HardSharing
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

HERE = jnp.ones(64, bool)


def make_batch(x, y):
    n = len(x)
    return Batch(
        inputs={"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y, jnp.float32)},
        present={"x": jnp.ones(n, bool), "y": jnp.ones(n, bool)},
        lengths={},
        targets={"none": jnp.zeros(n)},
        labeled={"none": jnp.zeros(n, bool)},
    )


def views(n=64, seed=0):
    """Two views of one latent vector, mixed differently, each with noise and noise channels."""
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(n, 5))
    both = []
    for mix in np.random.default_rng(9).normal(size=(2, 8, 8)):
        noisy = [s + 0.1 * rng.normal(size=(n, 5)), rng.normal(size=(n, 3))]
        both.append(np.concatenate(noisy, axis=1) @ mix)
    return make_batch(*both)


def train(auxiliary, batch, steps=200, rate=1e-2, encoder=None, fusion=None, sharing=None):
    """The model, its parameters before and after, and the losses of the steps."""
    encoder = encoder or Features()
    model = Model(
        encoders={"x": encoder, "y": encoder},
        fusion=fusion or Mean(4),
        heads={"none": Regression()},
        auxiliary={"extra": auxiliary},
        sharing=sharing or HardSharing(),
    )
    optimizer, balancer = optax.adam(rate), balance.equal()

    @jax.jit
    def run(key):
        start = init_state(model, optimizer, balancer, batch, key)
        step = make_train_step(model, optimizer, balancer)
        end, metrics = jax.lax.scan(lambda s, _: step(s, batch), start, length=steps)
        total, count = metrics["loss/extra"]
        return start.params, end.params, total / count

    return (model, *run(jax.random.key(0)))


def test_info_nce_finds_the_other_view_of_an_example_not_seen():
    """Share of held-out examples whose nearest neighbour in the other view is their own."""
    _, before, after, losses = train(InfoNCE(8), views(256))
    held_out = views(seed=1)

    def retrieved(params):
        a, b = (
            held_out.inputs[m] @ params["auxiliary_extra"][f"project_{m}"]["kernel"] for m in "xy"
        )
        a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return np.mean(np.argmax(a @ b.T, axis=1) == np.arange(64))

    assert retrieved(before) < 0.15 and retrieved(after) > 0.5
    assert losses[-1] < 0.2 * losses[0]


def test_cca_learns_the_canonical_correlations_that_there_are():
    """Against the solution in closed form, over all linear maps of the inputs to two numbers."""
    batch = views(512)
    _, _, after, losses = train(DeepCCA(2, ridge=1e-4), batch, steps=400, rate=3e-2)
    x, y = (np.asarray(batch.inputs[m], np.float64) for m in "xy")
    q, r = (np.linalg.svd(v - v.mean(0), full_matrices=False)[0] for v in (x, y))
    best = np.linalg.svd(q.T @ r, compute_uv=False)[:2]
    assert best.min() > 0.9
    np.testing.assert_allclose(2 - losses[-1], best.sum(), atol=5e-3)
    made = [batch.inputs[m] @ after["auxiliary_extra"][f"project_{m}"]["kernel"] for m in "xy"]
    here = jnp.ones(512, bool)
    np.testing.assert_allclose(cca(*made, here, here, ridge=1e-4), losses[-1], atol=1e-3)


@pytest.mark.parametrize(
    ("objective", "distance"), [(CORAL(), coral_distance), (MMD(), discrepancy)]
)
def test_alignment_makes_the_distributions_alike(objective, distance):
    rng = np.random.default_rng(0)
    batch = make_batch(3 * rng.normal(size=(64, 4)) + 1, rng.normal(size=(64, 4)))
    model, before, after, losses = train(objective, batch, encoder=MLPEncoder((5,)))
    held_out = make_batch(3 * rng.normal(size=(64, 4)) + 1, rng.normal(size=(64, 4)))

    def apart(params):
        _, (seen,) = model.apply(
            {"params": params}, *held_out[:3], train=False, method="represent_and_record"
        )
        return distance(*(seen.tokens[m].values[:, 0] for m in "xy"), HERE, HERE)

    assert losses[-1] < 0.1 * losses[0]
    assert apart(after) < 0.3 * apart(before)


def test_reconstruction_from_the_other_modality_tells_what_they_share():
    """y is a linear map of x: its error falls to nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4))
    batch = make_batch(x, x @ rng.normal(size=(4, 3)))
    objective = Reconstruction("x", decoders=Decoders(hidden=()))
    _, _, _, losses = train(objective, batch, steps=400, rate=3e-2)
    assert losses[0] > 0.5 and losses[-1] < 1e-3


@pytest.mark.slow
def test_elbo_learns_to_imagine_an_absent_modality():
    """y is predicted from x alone, through the expert of x: better than by its mean."""
    rng = np.random.default_rng(0)
    s = rng.normal(size=(64, 2))
    batch = make_batch(3 * s @ rng.normal(size=(2, 4)), 3 * s @ rng.normal(size=(2, 3)))
    objective = ELBO(beta=0.1, decoders=Decoders(hidden=()))
    fusion = ProductOfExperts(2)
    model, _, after, losses = train(objective, batch, 600, 3e-2, fusion=fusion)
    assert losses[-1] < 0.2 * losses[0]
    present = batch.present | {"y": jnp.zeros(64, bool)}
    _, (seen,) = model.apply(
        {"params": after},
        batch.inputs,
        present,
        {},
        train=False,
        method="represent_and_record",
    )
    decode = after["auxiliary_extra"]["decoders"]["decode_y"]["Dense_0"]
    y = np.asarray(batch.inputs["y"])
    error = ((seen.fused @ decode["kernel"] + decode["bias"][None] - y) ** 2).mean()
    assert error < 0.3 * y.var(axis=0).mean()


def test_the_entropy_of_dselect_drives_its_selectors_to_single_experts():
    batch, sharing = views(), DSelectK(4, 2, (3,))
    _, _, _, losses = train(Sown("sharing", "entropy"), batch, sharing=sharing)
    assert losses[0] > 2 and losses[-1] < 0.01
