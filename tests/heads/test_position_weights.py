"""Weights of the classes of tokens and pixels: against NumPy in float64, and PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from mmjax import balance, losses
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.fusion import Concat
from mmjax.heads import Segmentation, SequenceLabeling
from mmjax.model import Model
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.train.steps.forward import count_labels, sum_losses, weigh_labels
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

RNG = np.random.default_rng(0)
EXAMPLES, TOKENS, WEIGHTS = 16, 5, (0.2, 1.0, 3.0)
TARGETS = RNG.choice([-1, 0, 1, 2], (EXAMPLES, TOKENS), p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
TARGETS[0] = -1  # an example that is labeled and has no labeled position
LOGITS = RNG.normal(size=(EXAMPLES, TOKENS, 3))
LABELED = RNG.random(EXAMPLES) < 0.8
LABELED[0] = True


def make_batch(targets=TARGETS, labeled=LABELED, **changes):
    batch = Batch({}, {"x": np.ones(EXAMPLES, bool)}, {}, {"tag": targets}, {"tag": labeled})
    return batch._replace(**changes)


def mean_loss(head, logits, batch):
    model = Model({"x": MLPEncoder((3,))}, Concat(), {"tag": head})
    weights = weigh_labels(model, batch)
    total = sum_losses(model, {"tag": logits}, batch, ["tag"], weights)
    return (total / count_labels(batch, ["tag"], weights))[0]


def compute_expected_loss(classes, examples, gamma=0.0, targets=TARGETS):
    """The sums over positions, in float64; the focal loss with `gamma`."""
    total = weight = 0.0
    for e in np.flatnonzero(LABELED):
        places = np.flatnonzero(targets[e] >= 0)
        for place in places:
            logits, target = LOGITS[e, place], targets[e, place]
            log_p = logits[target] - np.log(np.exp(logits).sum())
            w = examples[e] * classes[target] / len(places)
            total -= w * (1 - np.exp(log_p)) ** gamma * log_p
            weight += w
    return total / weight


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_positions_are_weighed_by_their_classes_and_examples(gamma):
    loss = functools.partial(losses.focal, gamma=gamma) if gamma else losses.cross_entropy
    examples = RNG.random(EXAMPLES)
    weights = {"tag": np.where(LABELED, examples, np.nan)}
    head = SequenceLabeling(3, "x", loss=loss, class_weights=WEIGHTS)
    found = mean_loss(head, jnp.float32(LOGITS), make_batch(weights=weights))
    expected = compute_expected_loss(WEIGHTS, examples, gamma)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_equal_weights_change_nothing():
    # But for labeled examples without a labeled position: without weights their loss 0 counts.
    targets = np.where(np.arange(EXAMPLES)[:, None] == 0, 1, TARGETS)
    targets[:, 0] = np.maximum(targets[:, 0], 0)
    plain, weighed = (
        mean_loss(
            SequenceLabeling(3, "x", class_weights=w), jnp.float32(LOGITS), make_batch(targets)
        )
        for w in (None, (0.7, 0.7, 0.7))
    )
    np.testing.assert_allclose(weighed, plain, rtol=1e-6)
    expected = compute_expected_loss((1.0, 1.0, 1.0), np.ones(EXAMPLES), targets=targets)
    np.testing.assert_allclose(plain, expected, rtol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pixels_and_gradients_are_those_of_torch(smoothing):
    import torch

    targets = RNG.integers(0, 3, (EXAMPLES, 2, 3)).astype(np.int32)
    targets[:, 1, 2] = -1
    logits = RNG.normal(size=(EXAMPLES, 2, 3, 3)).astype(np.float32)
    # PyTorch smooths by weighted shares, which equal weights make the same.
    classes = (1.0, 1.0, 1.0) if smoothing else WEIGHTS
    loss = functools.partial(losses.cross_entropy, label_smoothing=smoothing)
    head = Segmentation(3, (2, 3), loss=loss, class_weights=classes)
    found = jax.jit(jax.value_and_grad(lambda p: mean_loss(head, p, make_batch(targets))))(logits)
    p = torch.tensor(logits, requires_grad=True)
    y = torch.tensor(np.where(LABELED[:, None, None], targets, -1)).long()
    expected = torch.nn.functional.cross_entropy(
        p.permute(0, 3, 1, 2), y, torch.tensor(classes), ignore_index=-1, label_smoothing=smoothing
    )
    expected.backward()
    np.testing.assert_allclose(found[0], expected.item(), rtol=1e-5)
    np.testing.assert_allclose(found[1], p.grad.numpy(), atol=1e-7)


def test_rules_count_labeled_positions():
    labels = TARGETS[TARGETS >= 0]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    head = SequenceLabeling(3, class_weights="balanced").learn_from_labels(TARGETS)
    np.testing.assert_allclose(head.class_weights, expected, rtol=1e-12)
    masks = TARGETS.reshape(EXAMPLES, 1, TOKENS)
    head = Segmentation(3, (1, 5), class_weights="balanced").learn_from_labels(masks)
    np.testing.assert_allclose(head.class_weights, expected, rtol=1e-12)


def test_weights_of_the_wrong_number_are_refused():
    for make in (SequenceLabeling, functools.partial(Segmentation, shape=(2, 2))):
        with pytest.raises(ValueError, match=r"class_weights has 2 numbers, but there are 3"):
            make(3, class_weights=(1.0, 2.0))


def make_training(class_weights):
    head = SequenceLabeling(3, tokens="x", class_weights=class_weights)
    model = Model({"x": RecurrentEncoder(width=3, output="all")}, Concat(), {"tag": head})
    inputs = {"x": RNG.normal(size=(EXAMPLES, TOKENS, 2)).astype(np.float32)}
    lengths = {"x": np.full(EXAMPLES, TOKENS, np.int32)}
    return model, jax.tree.map(jnp.asarray, make_batch(inputs=inputs, lengths=lengths))


@pytest.mark.slow
def test_two_devices_take_the_step_of_one_and_evaluation_is_not_weighed():
    from tests.train.steps.test_train_step import start

    model, batch = make_training(WEIGHTS)
    optimizer, balancer = optax.sgd(0.5), balance.equal()
    state = start(model, batch, optimizer, balancer)
    one, _ = jax.jit(make_train_step(model, optimizer, balancer))(state, batch)
    step = make_train_step(model, optimizer, balancer, axis_name="data")
    two = jax.pmap(step, "data", in_axes=(None, 0), devices=jax.devices()[:2])(
        state, jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
    )[0]
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b[0], atol=1e-6)
    plain = make_training(None)[0]
    for a, b in zip(
        jax.tree.leaves(make_eval_step(model)(state.all_variables, batch)),
        jax.tree.leaves(make_eval_step(plain)(state.all_variables, batch)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
