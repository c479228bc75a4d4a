"""Each loss against its closed form and its gradient against a finite difference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mmjax import losses

LOGITS = np.array([1.0, -2.0, 0.5, 3.0])
SHARES = np.array([0.2, 0.5, 0.3, 0.0])


def softmax_loss(logits, target, smoothing=0.0):
    log_p = logits - np.log(np.exp(logits).sum())
    return -(1 - smoothing) * log_p[target] - smoothing * log_p.mean()


def sigmoid_loss(logits, target):
    p = 1 / (1 + np.exp(-logits))
    return -np.mean(target * np.log(p) + (1 - target) * np.log(1 - p))


def softmax_focal_loss(logits, target, gamma):
    p = np.exp(logits) / np.exp(logits).sum()
    return -((1 - p[target]) ** gamma) * np.log(p[target])


def sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2):
    """The definition that torchvision documents: the mean, without its default reduction."""
    p = 1 / (1 + np.exp(-logits))
    right = p * target + (1 - p) * (1 - target)
    weight = 1 if alpha is None else alpha * target + (1 - alpha) * (1 - target)
    return np.mean(-weight * (1 - right) ** gamma * np.log(right))


def link_loss(logits, target):
    over = np.concatenate([[1.0], 1 / (1 + np.exp(-logits)), [0.0]])
    return -np.log(over[target] - over[target + 1])


def coral_loss(logits, target):
    return len(logits) * sigmoid_loss(logits, target > np.arange(len(logits)))


def huber_loss(p, y, delta=1.0):
    e = abs(p - y)
    return e**2 / 2 if e <= delta else delta * (e - delta / 2)


def dirichlet_loss(log_alpha, target):
    alpha = np.exp(log_alpha)
    shares = np.eye(len(alpha))[target] if np.ndim(target) == 0 else target
    return (shares * (scipy.special.digamma(alpha.sum()) - scipy.special.digamma(alpha))).sum()


TABLE = [
    (losses.cross_entropy, softmax_loss, LOGITS, 2),
    (
        functools.partial(losses.cross_entropy, label_smoothing=0.3),
        functools.partial(softmax_loss, smoothing=0.3),
        LOGITS,
        1,
    ),
    (losses.binary_cross_entropy, sigmoid_loss, LOGITS, np.array([1, 0, 0, 1])),
    *(
        (
            functools.partial(losses.focal, gamma=gamma),
            functools.partial(softmax_focal_loss, gamma=gamma),
            LOGITS,
            target,
        )
        for gamma, target in [(2.0, 1), (0.5, 3)]
    ),
    (losses.binary_focal, sigmoid_focal_loss, LOGITS, np.array([1, 0, 0, 1])),
    (
        functools.partial(losses.binary_focal, alpha=None, gamma=0.5),
        functools.partial(sigmoid_focal_loss, alpha=None, gamma=0.5),
        LOGITS,
        np.array([1, 1, 0, 0]),
    ),
    *((losses.dirichlet_cross_entropy, dirichlet_loss, abs(LOGITS), t) for t in (1, SHARES)),
    *((losses.cumulative_link, link_loss, -np.sort(-LOGITS), target) for target in (0, 2, 4)),
    *((losses.coral, coral_loss, LOGITS, target) for target in (0, 2, 4)),
    (losses.squared_error, lambda p, y: (p - y) ** 2, 1.5, 4.0),
    (losses.absolute_error, lambda p, y: abs(p - y), 1.5, 4.0),
    (losses.huber, huber_loss, 1.5, 2.25),
    (losses.huber, huber_loss, 1.5, 4.0),
    (
        functools.partial(losses.huber, delta=0.2),
        functools.partial(huber_loss, delta=0.2),
        1.0,
        2.0,
    ),
]


@pytest.mark.parametrize("loss, closed, prediction, target", TABLE)
def test_closed_form_and_gradient(loss, closed, prediction, target):
    p, y = jnp.asarray(prediction, jnp.float32), jnp.asarray(target)
    y = y.astype(jnp.float32) if jnp.issubdtype(y.dtype, jnp.floating) else y
    value, gradient = jax.jit(jax.value_and_grad(loss))(p, y)
    assert value.shape == ()
    np.testing.assert_allclose(value, closed(prediction, target), rtol=1e-5)
    for i in np.ndindex(np.shape(prediction)):
        nudge = np.zeros(np.shape(prediction))
        nudge[i] = 1e-6
        slope = closed(prediction + nudge, target) - closed(prediction - nudge, target)
        np.testing.assert_allclose(gradient[i], slope / 2e-6, atol=1e-4)


@pytest.mark.parametrize("target", [0, 1])
def test_huge_logits_stay_finite(target):
    logits = jnp.array([1e4, -1e4])
    for loss, y in [
        (losses.cross_entropy, jnp.asarray(target)),
        (losses.binary_cross_entropy, jnp.array([target, 1 - target])),
        (functools.partial(losses.focal, gamma=0.5), jnp.asarray(target)),
        (functools.partial(losses.binary_focal, gamma=0.5), jnp.array([target, 1 - target])),
    ]:
        value, gradient = jax.jit(jax.value_and_grad(loss))(logits, y)
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
        assert (value == 0) if target == 0 and loss is losses.cross_entropy else value >= 0


@pytest.mark.parametrize("loss", [losses.cumulative_link, losses.coral])
def test_an_ordinal_loss_is_finite_for_every_class_whatever_the_logits(loss):
    logits = jnp.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]])
    every = jax.vmap(jax.value_and_grad(loss), (None, 0))
    value, gradient = jax.jit(jax.vmap(every, (0, None)))(logits, jnp.arange(4))
    assert jnp.isfinite(value).all() and jnp.isfinite(gradient).all()


def test_the_probabilities_of_a_cumulative_link_sum_to_one():
    logits = jnp.asarray(-np.sort(-LOGITS), jnp.float32)
    each = jax.vmap(losses.cumulative_link, (None, 0))(logits, jnp.arange(5))
    np.testing.assert_allclose(jnp.exp(-each).sum(), 1.0, rtol=1e-6)


def test_the_gradient_of_the_absolute_error_is_finite_at_equality():
    assert jnp.isfinite(jax.grad(losses.absolute_error)(jnp.float32(2), jnp.float32(2)))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_focal_loss_of_shares_is_the_sum_under_them(gamma):
    shares = np.array([0.2, 0.5, 0.3, 0.0])
    expected = sum(s * softmax_focal_loss(LOGITS, i, gamma) for i, s in enumerate(shares))
    found = losses.focal(jnp.float32(LOGITS), jnp.float32(shares), gamma)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_label_smoothing_is_that_of_torch(smoothing):
    import torch

    logits = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    for target in (np.arange(7) % 4, np.random.default_rng(1).dirichlet(np.ones(4), 7)):
        y = target.astype(np.int64 if target.ndim == 1 else np.float32)
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(logits), torch.tensor(y), reduction="none", label_smoothing=smoothing
        )
        each = jax.vmap(functools.partial(losses.cross_entropy, label_smoothing=smoothing))
        found = each(
            jnp.asarray(logits), jnp.asarray(y.astype(np.int32 if y.ndim == 1 else y.dtype))
        )
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_every_loss_is_in_the_table():
    public = {f for f in vars(losses).values() if getattr(f, "__module__", "") == losses.__name__}
    assert public == {getattr(loss, "func", loss) for loss, *_ in TABLE}
