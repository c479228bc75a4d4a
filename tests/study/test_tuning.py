"""Tuning: equal budgets, choice on validation alone, the same when resumed."""

import dataclasses
import itertools
import json

import jax
import jaxtyping
import pytest

from mmjax import files
from mmjax.config import build_config, flatten_config
from mmjax.config import load_config as load_config
from mmjax.study import run_study as studies
from mmjax.study import study_directory as directories
from mmjax.study import study_plan as plans
from mmjax.study.results import load
from mmjax.study.search_space import Choice, LogUniform, Uniform
from mmjax.study.study import Tuning
from mmjax.study.tuning import choose_best_trial, get_trial_directory, suggest_values
from tests.study import small_study
from tests.study.small_study import STUDY

SPACE = {
    "optimizer.learning_rate": LogUniform(1e-4, 1e-1),
    "model.fusion.width": Choice(("4", "6")),
}


@pytest.fixture(autouse=True, scope="module")
def _no_annotations():
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


def made(**options):
    fusions = STUDY.axes["fusion"]
    study = dataclasses.replace(
        STUDY,
        axes={"fusion": fusions},
        seeds=(0,),
        single_modality=False,
        single_task=False,
        tuning=Tuning(space=SPACE, seeds=(7, 8), **options),
    )
    return plans.make_study_plan("tuned", study, module=small_study)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tuned")
    plan = made(trials=3)
    directories.start_study(plan, directory, None, {})
    assert studies.run_study(plan, directory, devices=jax.devices()[:1]) == []
    return plan, directory


def told(directory, arm):
    return json.loads((directory / "arms" / arm / "tuning.json").read_text())


@pytest.mark.slow
@pytest.mark.slow
def test_every_arm_has_as_many_trials_and_the_same_rates(done):
    """An arm without a width is tuned in the rate alone."""
    _, directory = done
    concat, gated = (told(directory, f"fusion={name}")["trials"] for name in ("concat", "gated"))
    assert len(concat) == len(gated) == 3
    assert {tuple(trial["values"]) for trial in concat} == {("optimizer.learning_rate",)}
    assert {frozenset(trial["values"]) for trial in gated} == {frozenset(SPACE)}
    rate = "optimizer.learning_rate"
    assert [t["values"][rate] for t in concat] == [t["values"][rate] for t in gated]
    assert all(1e-4 <= float(t["values"][rate]) <= 1e-1 for t in concat)


@pytest.mark.slow
@pytest.mark.slow
def test_the_best_on_validation_is_trained_for_the_report_with_fresh_seeds(done):
    plan, directory = done
    for arm in plan.arms:
        found = told(directory, arm)
        best = max(found["trials"], key=lambda trial: trial["value"])
        assert found["chosen"] == best["values"] and found["metric"] == "kind/accuracy"
        text = (directory / "arms" / arm / "config.json").read_text()
        rows = flatten_config(load_config(text, own=small_study))
        rate = float(rows["optimizer.learning_rate"])
        assert rate == float(best["values"]["optimizer.learning_rate"])
    assert set(load(directory).seed) == {0}


@pytest.mark.slow
def test_no_trial_sees_the_test_split(done):
    _, directory = done
    results = list(directory.glob("arms/*/trials/*/result.json"))
    assert len(results) == 6
    for result in results:
        seeds = json.loads(result.read_text())["seeds"]
        assert set(seeds) == {"7", "8"}
        assert all(one["test"] == {} and one["validation"] for one in seeds.values())


def test_a_trial_that_failed_is_never_chosen(tmp_path):
    tuning = Tuning(3, {"epochs": Choice(("1", "2", "3"))})
    for number, value in enumerate((0.4, None, 0.7)):
        home = get_trial_directory(tmp_path, number)
        home.mkdir(parents=True)
        files.write_json(home / "values.json", {"epochs": str(number + 1)})
        if value is not None:
            seeds = {"1": {"validation": {"m": value - 0.1}}, "2": {"validation": {"m": value}}}
            files.write_json(home / "result.json", {"seeds": seeds})
    config = small_study.experiment.as_buildable()
    for direction, best in (("max", 3), ("min", 1)):
        chosen = choose_best_trial(tmp_path, config, tuning, ("m", direction))
        assert build_config(chosen).epochs == best
    assert json.loads((tmp_path / "tuning.json").read_text())["trials"][1]["value"] is None


def test_optuna_learns_from_trials_and_repeats_itself():
    """After trials that are the better the nearer to 0.8, TPE looks there."""
    pytest.importorskip("optuna")
    tuning = Tuning(50, {"x": Uniform(0.0, 1.0)}, sampler="tpe")
    trials = []
    for number in range(30):
        values = suggest_values(tuning, tuning.space, number, trials, "max")
        assert values == suggest_values(tuning, tuning.space, number, trials, "max")
        trials.append({"values": values, "value": -abs(float(values["x"]) - 0.8)})
    late = [abs(float(t["values"]["x"]) - 0.8) for t in trials[20:]]
    early = [abs(float(t["values"]["x"]) - 0.8) for t in trials[:10]]
    assert sum(late) < 0.5 * sum(early)


def test_trials_of_a_round_differ_and_repeat_themselves():
    """Each knows the values of those that run beside it, but not their results."""
    pytest.importorskip("optuna")
    tuning = Tuning(16, {"x": Uniform(0.0, 1.0)}, sampler="tpe", parallel=4)
    earlier = [
        {"values": {"x": str(x)}, "value": -abs(x - 0.8)} for x in (0.1, 0.4, 0.7, 0.75, 0.9) * 2
    ]
    rounds = []
    for _ in range(2):
        running = []
        for number in range(10, 14):
            args = (tuning, tuning.space, number, earlier, "max", running)
            running.append(suggest_values(*args))
        rounds.append(running)
    assert rounds[0] == rounds[1]
    values = sorted(float(trial["x"]) for trial in rounds[0])
    assert min(b - a for a, b in itertools.pairwise(values)) > 1e-6


@pytest.mark.slow
def test_optunas_trials_are_made_one_after_the_other(tmp_path):
    pytest.importorskip("optuna")
    plan = made(trials=2, sampler="tpe")
    directories.start_study(plan, tmp_path, None, {})
    assert studies.run_study(plan, tmp_path, devices=jax.devices()[:1]) == []
    assert all(len(told(tmp_path, arm)["trials"]) == 2 for arm in plan.arms)
