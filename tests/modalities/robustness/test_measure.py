"""The suite against evaluations of batches that are corrupted beforehand; closed forms of areas."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from mmjax.cli import script
from mmjax.config import auto_config, dump_config
from mmjax.data import interactions
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.files.run_files import write_config_file
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.metrics import calibration_error, fit_temperature
from mmjax.metrics.direction import declare_metric
from mmjax.modalities.robustness.calibration_by_subset import choose_subsets, measure_calibration
from mmjax.modalities.robustness.conditions import list_conditions
from mmjax.modalities.robustness.corruption import corrupt_batch
from mmjax.modalities.robustness.measure import Robustness, RobustnessCurve, measure_robustness
from mmjax.modalities.robustness.summary import (
    compute_area,
    compute_effective_robustness,
    compute_relative_robustness,
    summarize_robustness,
)
from mmjax.modalities.robustness.write_calibration import write_calibration
from mmjax.modalities.robustness.write_robustness import write_robustness
from mmjax.model import Model
from mmjax.runs.trained import make_trained
from mmjax.train.run_arms import run

LEVELS = (0.0, 0.5, 1.0)


def make_untrained(toy, model, seeds=(4, 2), **options):
    """A trained model of random parameters, one set per seed."""
    experiment = toy.experiment(model=model, **options)
    batch = jax.tree.map(jnp.asarray, experiment.data.splits["train"].batch)
    inputs, present, lengths = (
        {m: part[m] for m in model.encoders if m in part} for part in batch[:3]
    )

    def init(seed):
        return model.init(jax.random.key(seed), inputs, present, lengths, train=False)

    return make_trained(experiment, jax.vmap(init)(jnp.array(seeds)), seeds)


def list_of(trained, **options):
    """Lists conditions with the units of the toy's training split."""
    return list_conditions(trained.spec, trained.experiment.data.splits["train"], **options)


@pytest.fixture(scope="module")
def trained(toy):
    return make_untrained(toy, toy.model())


@pytest.fixture(scope="module")
def measured(trained):
    conditions = list_of(trained, corruptions=["noise", "missing"])
    return measure_robustness(trained, None, conditions, levels=LEVELS, draws=2)


def select(measured, modality, corruption):
    [curve] = [c for c in measured.curves if (c.modality, c.corruption) == (modality, corruption)]
    return curve.values


@pytest.mark.slow
def test_every_condition_is_measured_and_starts_at_the_evaluation(trained, measured):
    names = [(curve.modality, curve.corruption) for curve in measured.curves]
    assert names == [
        ("vector", "noise"),
        ("vector", "missing"),
        ("sequence", "noise"),
        ("sequence", "missing"),
        ("all", "main corruption"),
        ("all", "missing"),
    ]
    expected = trained.evaluate(trained.experiment.data)  # of the ensemble, which has its metrics
    for curve in measured.curves:
        assert set(curve.values) == set(expected)
        for values in curve.values.values():
            assert values.shape == (3, 2)
    clean = measured.curves[0].values
    for i, seed in enumerate(trained.seeds):
        one = make_trained(
            trained.experiment, jax.tree.map(lambda x, i=i: x[i : i + 1], trained.variables), [seed]
        )
        for metric, value in one.evaluate(trained.experiment.data).items():
            for curve in measured.curves:
                assert curve.values[metric][0, i] == pytest.approx(value, rel=1e-5), metric
    assert clean["kind/accuracy"].dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modality", "corruption"),
    [("sequence", "noise"), ("all", "main corruption"), ("all", "missing")],
)
def test_a_curve_is_the_evaluation_of_corrupted_batches(trained, measured, modality, corruption):
    """The mean over two draws, of the second seed alone."""
    data = trained.experiment.data
    conditions = list_of(trained, corruptions=["noise", "missing"])
    [condition] = [c for c in conditions if (c.modality, c.corruption) == (modality, corruption)]
    second = jax.tree.map(lambda x: x[1:], trained.variables)
    one = make_trained(trained.experiment, second, [trained.seeds[1]])
    batch, accuracies, errors = data.splits["test"].batch, [], []
    for draw in range(2):
        changed = corrupt_batch(
            condition.corruptions,
            batch,
            0.5,
            jax.random.key(draw),
            np.arange(batch.size),
            missing=condition.missing,
        )
        metrics = one.evaluate(changed)
        accuracies.append(metrics["kind/accuracy"])
        errors.append(metrics["size/mae"])
    found = select(measured, modality, corruption)
    assert found["kind/accuracy"][1, 1] == pytest.approx(np.mean(accuracies), abs=1e-6)
    assert found["size/mae"][1, 1] == pytest.approx(np.mean(errors), rel=1e-5)
    assert found["size/mae"][1, 1] != found["size/mae"][0, 1]


@declare_metric("max", "classification", tune=lambda prediction, target: target.mean())
def tuned(prediction, target, setting):
    """Returns what it learned from the validation split."""
    return setting


@pytest.mark.slow
def test_the_batch_size_and_a_baseline_without_the_modality(toy, trained):
    """A model of the vector alone does not see the noise of the sequence; tuned metrics work."""
    head = Classification(4, extra_metrics={"tuned": tuned})
    model = toy.model().clone(heads={"kind": head, "size": Regression(mean=1.5, scale=1.1)})
    conditions = list_of(trained, corruptions=["noise"], modalities=["sequence"])
    whole = measure_robustness(trained, None, conditions, levels=LEVELS)
    parts = measure_robustness(
        make_untrained(toy, model, eval_batch_size=7), None, conditions, levels=LEVELS
    )
    for metric, values in select(whole, "sequence", "noise").items():
        np.testing.assert_allclose(
            select(parts, "sequence", "noise")[metric], values, rtol=1e-5, atol=1e-6
        )
    data = trained.experiment.data
    validation = data.splits["validation"].batch
    expected = validation.targets["kind"][validation.labeled["kind"]].mean()
    assert (select(parts, "sequence", "noise")["kind/tuned"] == expected).all()
    alone = Model(
        {"vector": MLPEncoder((8,))},
        Concat(),
        {"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
    )
    baseline = measure_robustness(make_untrained(toy, alone), data, conditions, levels=LEVELS)
    for values in select(baseline, "sequence", "noise").values():
        np.testing.assert_array_equal(values, np.broadcast_to(values[:1], values.shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (0.1, 1.0)}, r"levels are \[0.1, 1.0\]; they must rise from 0"),
        ({"levels": (0.0, 0.5, 0.5)}, "must rise"),
        ({"levels": (0.0, 1.5)}, "at most 1"),
        ({"draws": 0}, "draws is 0"),
        ({"split": "tset"}, "no split 'tset'"),
        ({"corruptions": ["nose"]}, "corruption is 'nose'; it must be one of"),
        ({"corruptions": ["typo"]}, r"none of the corruptions \['typo'\] applies"),
        ({"modalities": ["vetcor"]}, "no modality 'vetcor'"),
        ({"kinds": {"vector": "picture"}}, "kind is 'picture'; it must be one of"),
        ({"groups": {"wrist": ["vector", "vecotr"]}}, "no modality 'vecotr'"),
        ({"groups": {"wrist": ["vector"]}}, r"'wrist' has the modalities \['vector'\]; name two"),
        ({"groups": {"all": ["vector", "sequence"]}}, "'all' needs another name: 'all' stands for"),
        ({"groups": {"vector": ["vector", "sequence"]}}, "'vector' is a modality"),
    ],
)
def test_wrong_arguments_are_refused(toy, options, message):
    trained = make_trained(toy.experiment(), {"params": np.zeros((1, 1))}, [0])
    with pytest.raises(ValueError, match=message):
        if options.keys() & {"corruptions", "modalities", "kinds", "groups"}:
            list_of(trained, **options)
        else:
            measure_robustness(trained, **options)


def make_curves(values, seeds=(0, 1), maximize=True):
    curve = RobustnessCurve("a", "noise", {"y/m": np.array(values)})
    directions = {"y/m": "max" if maximize else "min"}
    return Robustness("test", LEVELS, 1, seeds, directions, ("y/m",), (curve,))


def test_areas_are_those_of_trapezoids():
    levels = [0.0, 0.2, 1.0]
    values = np.array([[1.0, 2.0], [0.5, 2.0], [0.0, 2.0]])
    np.testing.assert_allclose(compute_area(levels, values), [0.2 * 0.75 + 0.8 * 0.25, 2.0])
    kept = compute_relative_robustness(levels, values, maximize=True)
    np.testing.assert_allclose(kept, [0.35, 1.0])
    np.testing.assert_allclose(
        compute_relative_robustness([0.0, 1.0], np.array([[1.0], [4.0]]), maximize=False), [0.4]
    )
    zero = compute_relative_robustness([0.0, 1.0], np.zeros((2, 1)), maximize=True)
    assert np.isnan(zero).all()


@pytest.mark.parametrize("maximize", [True, False])
def test_effective_robustness_is_the_difference_of_the_losses(maximize):
    """Paired by seed, or by Welch's test; a better clean value alone has no effect."""
    sign = 1 if maximize else -1
    values = sign * np.array([[0.9, 0.8], [0.8, 0.7], [0.7, 0.6]])  # loses 0.1 on average
    baseline = sign * np.array([[0.7, 0.6], [0.4, 0.3], [0.1, 0.0]])  # 0.3
    mean, half = compute_effective_robustness(
        LEVELS, values, baseline, maximize=maximize, paired=True
    )
    assert mean == pytest.approx(0.2)
    assert half == pytest.approx(0, abs=1e-12)
    [summary] = summarize_robustness(
        make_curves(values, maximize=maximize), make_curves(baseline, maximize=maximize)
    )
    assert summary.effective == pytest.approx((mean, half), abs=1e-12)
    other = sign * np.array([[0.5, 0.5, 0.5], [0.4, 0.3, 0.2], [0.3, 0.1, -0.1]])
    mean, half = compute_effective_robustness(
        LEVELS, values[:, :2], other, maximize=maximize, paired=False
    )
    first, second = np.array([-0.1, -0.1]), np.array([-0.1, -0.2, -0.3])
    assert mean == pytest.approx(0.1)
    error = np.sqrt(second.var(ddof=1) / 3 + first.var(ddof=1) / 2)
    assert half == pytest.approx(stats.t.ppf(0.975, 2) * error)  # all spread is the second's
    rng = np.random.default_rng(0)
    values, other = sign * rng.normal(size=(3, 4)), sign * rng.normal(size=(3, 6))
    mean, half = compute_effective_robustness(
        LEVELS, values, other, maximize=maximize, paired=False
    )
    first, second = (sign * (compute_area(LEVELS, v) - v[0]) for v in (values, other))
    low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((low, high), rel=1e-9)
    with pytest.raises(ValueError, match="other levels or under other conditions"):
        summarize_robustness(make_curves(values), make_curves(baseline)._replace(curves=()))


@pytest.mark.slow
def test_the_results_are_written(measured, tmp_path):
    words = write_robustness(tmp_path, measured, measured)
    assert "kind/accuracy is" in words and "of all modalities at once" in words
    assert "loses less under 0 and more under 0 of 6 corruptions" in words
    stored = json.loads((tmp_path / "robustness.json").read_text())
    assert stored["model"]["levels"] == [0.0, 0.5, 1.0]
    found = stored["model"]["curves"][0]["values"]["size/mae"]
    np.testing.assert_allclose(found, measured.curves[0].values["size/mae"])
    assert {m["metric"] for m in stored["measures"]} == {"kind/accuracy", "size/mae"}
    lines = (tmp_path / "robustness.md").read_text().splitlines()
    assert sum(line.startswith("| kind/accuracy") for line in lines) == 6
    assert (tmp_path / "robustness.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_calibration_by_subset_is_that_of_batches_without_the_others(trained, tmp_path):
    """Temperatures come from validation; examples without the subset are left out."""
    calibrations = measure_calibration(trained)
    assert [(c.task, c.subset) for c in calibrations] == [
        ("kind", "sequence+vector"),
        ("kind", "sequence"),
        ("kind", "vector"),
    ]
    whole, _, vector = calibrations
    second = jax.tree.map(lambda x: x[1:], trained.variables)
    one = make_trained(trained.experiment, second, [trained.seeds[1]])

    def predict(split):
        batch = trained.experiment.data.splits[split].batch
        absent = batch.present | {"sequence": np.zeros(batch.size, bool)}
        counts = batch.present["vector"] & batch.labeled["kind"]
        logits = one.compute_outputs(batch._replace(present=absent))["kind"]
        return logits[counts], batch.targets["kind"][counts]

    temperature = fit_temperature(*predict("validation"))
    assert vector.temperature[1] == pytest.approx(temperature, rel=1e-4)
    logits, targets = predict("test")
    assert vector.examples == len(targets)
    scales = (1, whole.temperature[1], temperature)
    expected = [calibration_error(logits / t, targets) for t in scales]
    np.testing.assert_allclose(vector.values["ece"][:, 1], expected, rtol=1e-4)
    accuracy = (logits.argmax(axis=1) == targets).mean()
    np.testing.assert_allclose(vector.values["accuracy"][:, 1], accuracy)
    np.testing.assert_array_equal(whole.temperature, whole.temperature_of_all)
    np.testing.assert_array_equal(vector.temperature_of_all, whole.temperature)
    assert vector.risk_coverage["risk"][-1] == pytest.approx(
        1 - vector.values["accuracy"][0].mean()
    )
    words = write_calibration(tmp_path, calibrations)
    assert words.startswith("kind: with all modalities the model is right on")
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["subsets"][2]["values"]["ece"][0][1] == pytest.approx(expected[0], rel=1e-4)
    for name in ("reliability.png", "risk_coverage.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_of_many_modalities_few_subsets_are_chosen():
    subsets = choose_subsets(6)
    assert sorted(subsets.sum(axis=1)) == [1] * 6 + [5] * 6 + [6]
    assert choose_subsets(3).shape == (7, 3) and choose_subsets(3)[0].all()


@auto_config
def stored_experiment():
    heads = {"redundancy": Classification(2)}
    encoders = {"a": MLPEncoder((4,)), "b": MLPEncoder((4,))}
    return Experiment(
        data=interactions(modalities=("vector", "vector"), train=64, validation=32, test=32),
        model=Model(encoders=encoders, fusion=Concat(), heads=heads),
        optimizer=optax.adam(1e-2),
        epochs=1,
        batch_size=16,
    )


@pytest.mark.slow
def test_the_commands_write_into_the_arm(tmp_path, capsys):
    home = tmp_path / "run" / "all"
    home.mkdir(parents=True)
    write_config_file(home / "config.json", dump_config(stored_experiment.as_buildable()))
    run({"all": stored_experiment}, workdir=tmp_path / "run", seeds=(0, 1), devices=1)
    options = ["--levels", "0", "1", "--corruptions", "noise", "--kinds", "b=vector"]
    options += ["--groups", "sensor=a+b"]
    script(["robustness", str(tmp_path / "run"), "--baseline", str(home), *options])
    script(["calibration", str(tmp_path / "run")])
    assert "Against the baseline" in capsys.readouterr().out
    table = (home / "robustness" / "robustness.md").read_text()
    assert "| redundancy/accuracy | sensor | noise |" in table
    assert (home / "calibration" / "calibration.json").is_file()
