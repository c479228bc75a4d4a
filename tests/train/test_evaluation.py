"""Evaluation of a split against scikit-learn, however it is cut into batches."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mmjax.balance import equal
from mmjax.data.dataset import Arrays
from mmjax.heads import Classification, Regression
from mmjax.intervals import compute_mean_interval
from mmjax.metrics import (
    PerExample,
    auroc,
    calibration_error,
    higher_is_better,
    spearman,
)
from mmjax.train.evaluation import get_metric_directions, is_higher_better, summarize_statistics
from mmjax.train.programs import Programs
from mmjax.train.split_evaluation import evaluate_split, validate_balancer

SEEDS = (0, 1)


class Known(NamedTuple):
    """Parameters of two seeds with their predictions on the test split."""

    params: dict
    predictions: list[dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def known(toy):
    """Made once, and untrained: the initial parameters are as good as any."""
    programs = Programs(toy.experiment(), SEEDS, jax.devices()[:1])
    params = programs.init().train.params
    test = programs.splits.prepare("test")(toy.dataset().splits["test"].batch)

    def predict(i):
        one = {"params": jax.tree.map(lambda x: x[i], params)}
        found = toy.model().apply(one, test.inputs, test.present, test.lengths, train=False)
        return {t: np.asarray(p, np.float64) for t, p in found.items()}

    return Known(jax.device_get(params), [predict(i) for i in range(len(SEEDS))])


def truth(batch, predictions):
    """The same metrics by scikit-learn and the losses by hand, over the labeled examples."""
    kind, size = batch.labeled["kind"], batch.labeled["size"]
    logits, classes = predictions["kind"][kind], batch.targets["kind"][kind]
    chosen = logits.argmax(-1)
    values, wanted = predictions["size"][size], batch.targets["size"][size].astype(np.float64)
    found = {
        "kind/loss": sk.log_loss(classes, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)),
        "kind/accuracy": sk.accuracy_score(classes, chosen),
        "kind/macro_f1": sk.f1_score(classes, chosen, average="macro"),
        "size/loss": sk.mean_squared_error(wanted, values) / 1.1**2,  # of standardized values
        "size/mae": sk.mean_absolute_error(wanted, values),
        "size/rmse": sk.root_mean_squared_error(wanted, values),
        "size/r2": sk.r2_score(wanted, values),
    }
    return found | {"loss": (found["kind/loss"] + found["size/loss"]) / 2}


@pytest.mark.parametrize(
    ("batch_size", "batches", "devices", "stream"),
    [
        pytest.param(64, 1, 1, False, marks=pytest.mark.slow),  # the 60 examples in one batch
        pytest.param(60, 4, 1, False, marks=pytest.mark.slow),  # exactly one
        (7, 2, 1, False),  # five dispatches, the last half filled
        pytest.param(
            8, 3, 4, False, marks=pytest.mark.slow
        ),  # three dispatches; some devices have nothing but filling at the end
        (8, 3, 4, True),
    ],
)
def test_every_seeds_metrics_are_those_of_scikit_learn(
    toy, known, batch_size, batches, devices, stream
):
    experiment = toy.experiment(
        eval_batch_size=batch_size, steps_per_dispatch=batches, stream=stream
    )
    programs = Programs(experiment, SEEDS, jax.devices()[:devices])
    found = evaluate_split(programs, programs.place({"params": known.params}), "test")
    assert len(found) == len(SEEDS)
    batch = toy.dataset().splits["test"].batch
    for metrics, predictions in zip(found, known.predictions, strict=True):
        assert metrics == pytest.approx(truth(batch, predictions), rel=1e-5, abs=1e-6)
        assert all(type(value) is float for value in metrics.values())
    assert found[0] != found[1]


def test_a_task_without_any_label_has_nan_metrics_and_the_others_their_own(toy, known):
    data = toy.dataset()
    batch = data.splits["test"].batch
    none = {"size": np.zeros_like(batch.labeled["size"])}
    bare = batch._replace(labeled=batch.labeled | none)
    splits = dict(data.splits) | {"test": Arrays(bare)}
    experiment = toy.experiment(data=dataclasses.replace(data, splits=splits), eval_batch_size=60)
    programs = Programs(experiment, SEEDS[:1], jax.devices()[:1])
    params = jax.tree.map(lambda x: x[:1], known.params)
    (found,) = evaluate_split(programs, programs.place({"params": params}), "test")
    kind = {k: v for k, v in truth(batch, known.predictions[0]).items() if k.startswith("kind/")}
    assert {k: v for k, v in found.items() if k.startswith("kind/")} == pytest.approx(kind)
    rest = {k: v for k, v in found.items() if not k.startswith("kind/")}
    assert rest.keys() == {"size/loss", "size/mae", "size/rmse", "size/r2", "loss"}
    assert all(np.isnan(value) for value in rest.values())


def test_metrics_that_all_tasks_have_are_meaned_too(toy):
    """By scikit-learn, over two classifications of different sizes."""
    heads = {"kind": Classification(3), "shape": Classification(4)}
    model = dataclasses.replace(toy.model(), heads=heads)
    rng = np.random.default_rng(0)
    statistics, accuracies, f1s = {}, [], []
    for task, head in heads.items():
        target, chosen = rng.integers(0, head.classes, (2, 50))
        statistics[task] = {"loss": np.float64(70), "examples": np.float64(50)}
        statistics[task] |= {"target": PerExample(target), "predicted": PerExample(chosen)}
        accuracies.append(sk.accuracy_score(target, chosen))
        f1s.append(sk.f1_score(target, chosen, average="macro"))
    found = summarize_statistics(model, statistics)
    assert found["mean/accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["mean/macro_f1"] == pytest.approx(np.mean(f1s))
    assert found.keys() == get_metric_directions(model).keys()
    assert is_higher_better(model, "mean/accuracy")


@pytest.mark.parametrize(
    "heads",
    [
        {"kind": Classification(3)},
        {"kind": Classification(3), "size": Regression()},
        {"mean": Classification(3), "kind": Classification(3)},
    ],
)
def test_there_is_no_mean_of_one_task_or_of_metrics_that_differ(toy, heads):
    found = get_metric_directions(dataclasses.replace(toy.model(), heads=heads))
    assert found.keys() == {"loss"} | {
        f"{task}/{m}" for task, head in heads.items() for m in ("loss", *head.metrics)
    }


def test_errors_have_units_and_are_not_meaned(toy):
    model = dataclasses.replace(toy.model(), heads={"a": Regression(), "b": Regression()})
    assert {m for m in get_metric_directions(model) if m.startswith("mean/")} == {"mean/r2"}


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_that_of_students_t(n):
    values = np.random.default_rng(n).normal(size=n)
    mean, half = compute_mean_interval(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


def test_the_interval_holds_the_true_mean_in_95_of_100_cases():
    """4000 samples of five: 95% with a standard deviation of 0.35%."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    intervals = [compute_mean_interval(sample) for sample in draws.tolist()]
    share = np.mean([abs(mean - 3.0) < half for mean, half in intervals])
    assert share == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval():
    mean, half = compute_mean_interval([0.25])
    assert mean == 0.25
    assert np.isnan(half)


@pytest.mark.parametrize(
    ("monitor", "higher"),
    [
        ("loss", False),
        ("kind/loss", False),
        ("kind/accuracy", True),
        ("kind/macro_f1", True),
        ("size/mae", False),
        ("size/rmse", False),
        ("size/r2", True),
    ],
)
def test_whether_more_is_better(toy, monitor, higher):
    assert is_higher_better(toy.model(), monitor) is higher


@pytest.mark.parametrize("monitor", ["", "accuracy", "kind", "kind/r2", "shape/accuracy", "Loss"])
def test_an_unknown_monitor_is_refused_with_those_there_are(toy, monitor):
    with pytest.raises(ValueError) as error:
        is_higher_better(toy.model(), monitor)
    assert f"monitor is {monitor!r}" in str(error.value)
    for name in ("'loss'", "'kind/accuracy'", "'size/r2'", "'size/loss'"):
        assert name in str(error.value)


@higher_is_better
def share_within_one(prediction, target):
    """A user's own metric."""
    return float(np.mean(np.abs(prediction - target) < 1))


@pytest.mark.parametrize(
    ("batch_size", "devices", "stream"),
    [pytest.param(7, 1, False, marks=pytest.mark.slow), (8, 4, True)],
)
def test_extra_metrics_and_those_far_from_zero_are_scikit_learns(
    toy, known, batch_size, devices, stream
):
    """With missing labels, over batches, devices and seeds; the monitor may be a user's own."""
    data, offset = toy.dataset(), 3e6
    splits = {}
    for name, source in data.splits.items():
        targets = source.batch.targets
        far = (targets["size"].astype(np.float64) + offset).astype(np.float32)
        splits[name] = Arrays(source.batch._replace(targets=targets | {"size": far}))
    model = toy.model()
    kind = model.heads["kind"].clone(extra_metrics={"auroc": auroc, "ece": calibration_error})
    size = Regression(
        mean=offset, scale=1.1, extra_metrics={"near": share_within_one, "rank": spearman}
    )
    experiment = toy.experiment(
        data=dataclasses.replace(data, splits=splits),
        model=dataclasses.replace(model, heads={"kind": kind, "size": size}),
        eval_batch_size=batch_size,
        stream=stream,
        monitor="size/near",
    )
    programs = Programs(experiment, SEEDS, jax.devices()[:devices])
    found = evaluate_split(programs, programs.place({"params": known.params}), "test")
    batch = splits["test"].batch
    test = programs.splits.prepare("test")(batch)
    for i, values in enumerate(found):
        one = {"params": jax.tree.map(lambda x, i=i: x[i], known.params)}
        inputs = (test.inputs, test.present, test.lengths)
        p = {
            t: np.asarray(x, np.float64)[batch.labeled[t]]
            for t, x in experiment.model.apply(one, *inputs, train=False).items()
        }
        y = {t: batch.targets[t][batch.labeled[t]] for t in p}
        far = y["size"].astype(np.float64)
        probabilities = np.exp(p["kind"]) / np.exp(p["kind"]).sum(-1, keepdims=True)
        expected = {
            "kind/auroc": sk.roc_auc_score(y["kind"], probabilities, multi_class="ovr"),
            "kind/ece": calibration_error(p["kind"], y["kind"]),
            "size/rank": stats.spearmanr(p["size"], far).statistic,
            "size/near": np.mean(np.abs(p["size"] - far) < 1),
            "size/r2": sk.r2_score(far, p["size"]),
            "size/rmse": sk.root_mean_squared_error(far, p["size"]),
        }
        # Predictions near 3e6 are multiples of 1/4, and two programs may round them differently.
        tolerance = {"kind/auroc": 1e-6, "kind/ece": 1e-6}
        for name, value in expected.items():
            assert values[name] == pytest.approx(value, rel=tolerance.get(name, 0.02)), name
    assert found[0].keys() == get_metric_directions(experiment.model).keys()
    assert is_higher_better(experiment.model, "size/near")
    assert programs.monitor.select_best(programs.init(), found).best_value.shape == (len(SEEDS),)


def test_a_balancer_that_compares_losses_leaves_the_parameters_where_they_are(toy):
    """The same arrays, not copies of them."""
    balancer = equal()._replace(
        init=lambda tasks, params: jnp.zeros((2, len(tasks))),
        validate=lambda state, train, validation: jnp.stack([train, validation]),
    )
    programs = Programs(toy.experiment(balancer=balancer), SEEDS, jax.devices()[:1])
    before = programs.init()
    after = validate_balancer(programs, before).train
    assert (after.balancer_state > 0).all()
    leaves = (jax.tree.leaves(params) for params in (before.train.params, after.params))
    assert all(x is y for x, y in zip(*leaves, strict=True))
