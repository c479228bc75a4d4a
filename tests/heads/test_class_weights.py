"""Weights of classes: those of scikit-learn and of the paper, and the losses that PyTorch has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from mmjax.data.dataset import Arrays
from mmjax.data.spec import convert_spec_to_json, fill_part, make_spec, parse_spec
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, EffectiveNumber, MultiLabel, Ordinal
from mmjax.heads.class_weights import learn_class_weights, learn_positive_weights
from mmjax.model import Model
from mmjax.train.steps.forward import count_labels, sum_losses, weigh_labels
from mmjax.types import Batch

RNG = np.random.default_rng(0)
KINDS = RNG.choice(4, 60, p=[0.6, 0.25, 0.1, 0.05])
LABELS = RNG.choice([-1, 0, 1], (60, 3), p=[0.2, 0.6, 0.2])


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(4), y=KINDS)
    found = Classification(4, class_weights="balanced").learn_from_labels(KINDS)
    np.testing.assert_allclose(found.class_weights, expected, rtol=1e-12)
    shares = np.eye(4)[KINDS] * 0.5 + 0.125
    soft = Classification(4, class_weights="balanced").learn_from_labels(shares).class_weights
    np.testing.assert_allclose(soft, 60 / (4 * shares.sum(axis=0)), rtol=1e-12)
    # A class without training labels does not change the others.
    wide = Classification(5, class_weights="balanced").learn_from_labels(KINDS).class_weights
    np.testing.assert_allclose(wide, [*expected, 0.0], rtol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_effective_numbers_are_those_of_the_paper(beta):
    counts = np.array([500.0, 60.0, 1.0])
    # E_n = 1 + β + ... + β^(n-1), and the weights sum to the number of classes.
    effective = np.array([sum(beta**i for i in range(int(n))) for n in counts])
    expected = 3 / effective / (1 / effective).sum()
    np.testing.assert_allclose(
        learn_class_weights(EffectiveNumber(beta), counts), expected, rtol=1e-9
    )


def test_positives_are_weighed_against_negatives():
    positives, negatives = (LABELS == 1).sum(axis=0), (LABELS == 0).sum(axis=0)
    balanced = learn_positive_weights("balanced", LABELS)
    np.testing.assert_allclose(balanced, negatives / positives, rtol=1e-12)
    close = learn_positive_weights(EffectiveNumber(1 - 1e-9), LABELS)
    np.testing.assert_allclose(close, balanced, rtol=1e-6)
    assert learn_positive_weights(EffectiveNumber(0.0), LABELS) == (1.0, 1.0, 1.0)
    assert learn_positive_weights("balanced", np.array([[1, 0], [1, 0]])) == (1.0, 1.0)


def make_batch(labeled):
    present = np.ones(60, bool)
    return Batch({}, {"x": present}, {}, {"kind": jnp.asarray(KINDS)}, {"kind": labeled})


def mean_loss(head, logits, batch):
    model = Model({"x": MLPEncoder((3,))}, Concat(), {"kind": head})
    weights = weigh_labels(model, batch)
    total = sum_losses(model, {"kind": logits}, batch, ["kind"], weights)
    return (total / count_labels(batch, ["kind"], weights))[0]


@pytest.mark.reference
def test_losses_and_gradients_are_those_of_torch():
    import torch

    weights, logits = (0.2, 1.0, 3.0, 0.0), RNG.normal(size=(60, 4)).astype(np.float32)
    labeled = RNG.random(60) < 0.7
    head = Classification(4, class_weights=weights)
    found = jax.jit(jax.value_and_grad(lambda p: mean_loss(head, p, make_batch(labeled))))(logits)
    p = torch.tensor(logits, requires_grad=True)
    targets = torch.tensor(np.where(labeled, KINDS, -100))
    expected = torch.nn.functional.cross_entropy(p, targets, torch.tensor(weights))
    expected.backward()
    np.testing.assert_allclose(found[0], expected.item(), rtol=1e-5)
    np.testing.assert_allclose(found[1], p.grad.numpy(), atol=1e-7)
    y, many = np.maximum(LABELS, 0), RNG.normal(size=(60, 3)).astype(np.float32)
    head = MultiLabel(3, positive_weights=(0.5, 2.0, 7.0))
    each = jax.jit(jax.vmap(head.example_loss))(many, jnp.asarray(y))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(many), torch.tensor(np.float32(y)), pos_weight=torch.tensor([0.5, 2.0, 7.0])
    )
    np.testing.assert_allclose(each.mean(), expected.item(), rtol=1e-5)


def test_weights_of_examples_and_classes_multiply():
    logits, labeled = RNG.normal(size=(60, 4)), RNG.random(60) < 0.7
    examples, classes = RNG.random(60), np.array([0.2, 1.0, 3.0, 0.5])
    batch = make_batch(labeled)._replace(weights={"kind": np.where(labeled, examples, np.nan)})
    head = Classification(4, class_weights=tuple(classes.tolist()))
    w = (examples * classes[KINDS])[labeled]
    each = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(60), KINDS])[labeled]
    found = mean_loss(head, jnp.float32(logits), batch)
    np.testing.assert_allclose(found, (w * each).sum() / w.sum(), rtol=1e-5)


def test_ordered_classes_have_weights_too():
    logits, labeled = RNG.normal(size=(60, 3)), RNG.random(60) < 0.7
    head = Ordinal(4, class_weights="balanced").learn_from_labels(KINDS)
    np.testing.assert_allclose(head.class_weights, 60 / (4 * np.bincount(KINDS, minlength=4)))
    # P(y > k) = σ(logit_k): -log of the difference at the true class.
    above = np.hstack([np.ones((60, 1)), 1 / (1 + np.exp(-np.sort(logits)[:, ::-1]))])
    above = np.hstack([above, np.zeros((60, 1))])
    rows = np.arange(60)
    each = -np.log(above[rows, KINDS] - above[rows, KINDS + 1])[labeled]
    w = np.array(head.class_weights)[KINDS][labeled]
    found = mean_loss(head, jnp.float32(np.sort(logits)[:, ::-1]), make_batch(labeled))
    np.testing.assert_allclose(found, (w * each).sum() / w.sum(), rtol=1e-4)
    with pytest.raises(ValueError, match=r"Ordinal\.class_weights has 2 numbers, but there are 3"):
        Ordinal(3, class_weights=(1.0, 2.0))


def test_unknown_labels_have_no_weighted_loss():
    head = MultiLabel(3, partial=True, positive_weights=(0.5, 2.0, 7.0))
    logits = RNG.normal(size=3)
    found = head.example_loss(jnp.float32(logits), jnp.array([1, -1, 0]))
    expected = (0.5 * np.log1p(np.exp(-logits[0])) + np.log1p(np.exp(logits[2]))) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert head.example_loss(jnp.float32(logits), jnp.full(3, -1)) == 0


def test_an_experiment_learns_the_weights_which_a_run_stores(toy):
    rule = Classification(4, class_weights=EffectiveNumber(0.99))
    heads = {**toy.model().heads, "kind": rule}
    experiment = toy.experiment(model=dataclasses.replace(toy.model(), heads=heads))
    train = toy.dataset().splits["train"]
    assert isinstance(train, Arrays)
    targets = train.batch.targets["kind"][train.batch.labeled["kind"]]
    learned = experiment.model.heads["kind"]
    counts = np.bincount(targets, minlength=4).astype(float)
    assert learned.class_weights == learn_class_weights(EffectiveNumber(0.99), counts)
    spec = make_spec(experiment.data, experiment.model.heads)
    stored = parse_spec(convert_spec_to_json(spec)).heads["kind"]
    assert fill_part(rule, stored) == learned


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classification(3, class_weights=(1.0, 2.0)), "has 2 numbers, but there are 3"),
        (lambda: Classification(2, class_weights=(1.0, -2.0)), "no weight may be negative"),
        (lambda: Classification(2, class_weights=(0.0, 0.0)), "nor all be 0"),
        (lambda: Classification(2, class_weights=(1.0, float("nan"))), "no weight may be negative"),
        (lambda: MultiLabel(2, positive_weights=(1.0,)), "has 1 numbers, but there are 2 classes"),
        (lambda: EffectiveNumber(1.0), "beta is 1.0; it must be 0 to below 1"),
        (
            lambda: Classification(2, class_weights="balanced").weigh_target(jnp.array(0)),
            "class_weights is 'balanced', which an Experiment computes",
        ),
    ],
)
def test_bad_weights_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
