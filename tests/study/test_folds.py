"""Studies on folds: every arm on every fold and seed, resumed per fold, reported over folds."""

import csv
import dataclasses
import shutil

import fiddle as fdl
import jax
import numpy as np
import pytest

from mmjax import config as configs
from mmjax.config import ConfigError
from mmjax.data import Split
from mmjax.report import data_frames, study_files, study_results, write_report
from mmjax.study import run_study as studies
from mmjax.study import study_directory as directories
from mmjax.study import study_plan as plans
from mmjax.study.folds import set_fold
from mmjax.study.results import load
from mmjax.train.loop import fit
from tests.study import folded_study
from tests.study.folded_study import STUDY


def make_plan(study=STUDY, settings=()):
    return plans.make_study_plan("folded", study, settings, module=folded_study)


def run(plan, directory):
    directories.start_study(plan, directory, None, {})
    return studies.run_study(plan, directory, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    directory = tmp_path_factory.mktemp("folded")
    plan = make_plan()
    assert run(plan, directory) == []
    return plan, directory


@pytest.mark.slow
def test_each_fold_is_trained_as_an_experiment_on_that_fold(done, tmp_path):
    _, directory = done
    frame = load(directory)
    test = frame[(frame.split == "test") & (frame.metric == "kind/accuracy")]
    assert len(test) == 2 * 3 * 2
    assert test.groupby(["arm", "fold", "seed"]).size().eq(1).all()
    config = folded_study.experiment.as_buildable()
    config = configs.apply_setting(config, "data.splits.split.folds=3")
    config = configs.apply_setting(config, "data.splits.split.fold=2")
    config = configs.apply_setting(config, "optimizer.learning_rate=0.03")
    alone = fit(configs.build_config(config), tmp_path, seeds=(0, 1), devices=jax.devices()[:1])
    rows = frame[(frame.arm == "learning_rate=0.03") & (frame.fold == 2) & (frame.split == "test")]
    for seed, values in enumerate(alone.test):
        for metric, value in values.items():
            stored = rows[(rows.seed == seed) & (rows.metric == metric)].value.item()
            assert stored == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_a_fold_that_is_lost_is_trained_again_and_the_others_are_kept(done, tmp_path):
    plan, directory = done
    copy = tmp_path / "study"
    shutil.copytree(directory, copy)
    home = "learning_rate=0.01,fold=1"
    shutil.rmtree(copy / "arms" / home)
    others = {p: p.stat().st_mtime_ns for p in copy.glob("arms/*/result.json")}
    assert len(others) == 5
    directories.check_study_directory(plan, copy, resume=True)
    assert run(plan, copy) == []
    assert all(p.stat().st_mtime_ns == time for p, time in others.items())
    keys = ["arm", "fold", "seed", "split", "step", "metric"]
    first, second = (load(d).sort_values(keys, ignore_index=True) for d in (directory, copy))
    is_cost = first.split == "cost"
    np.testing.assert_allclose(first.value[~is_cost], second.value[~is_cost], rtol=1e-5)


@pytest.mark.slow
def test_another_number_of_folds_is_another_study(done):
    _, directory = done
    for folds in (0, 4):
        plan = make_plan(dataclasses.replace(STUDY, folds=folds))
        with pytest.raises(ConfigError, match=f"folds: stored 3, requested {folds}"):
            directories.check_study_directory(plan, directory, resume=True)


@pytest.mark.slow
def test_the_report_is_over_folds(done):
    _, directory = done
    write_report.write_report(directory)
    record = study_files.read_study(directory)
    frame = load(directory)
    test = frame[(frame.split == "test") & (frame.metric == "kind/accuracy")]
    means = test.pivot_table(index="arm", columns="fold", values="value").loc[list(record.arms)]
    values = study_results.select_values(record, "kind/accuracy")
    np.testing.assert_allclose(values, means)
    summary = data_frames.summarize_arms(record, "kind/accuracy")
    assert summary.seeds.tolist() == [3, 3] and summary.common.iloc[1] == 3
    # Three folds of 20 examples: one trains, one validates, one tests.
    spread = means.std(axis=1, ddof=1) * np.sqrt(1 / 3 + 20 / 20)
    np.testing.assert_allclose(summary.half, 4.302653 * spread, rtol=1e-6)
    text, page = ((directory / f"report.{kind}").read_text() for kind in ("md", "html"))
    for report in (text, page):
        assert "seeds 0, 1 on each of 3 folds" in report and "Nadeau and Bengio" in report
        assert "kind accuracy" in report and "on every fold" in report
    with (directory / "tables" / "folds.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][-3:] == ["fold 0", "fold 1", "fold 2"]
    assert len(rows) == 3
    for rate, *numbers in rows[1:]:
        expected = means.loc[f"learning_rate={rate}"]
        np.testing.assert_allclose([float(x) for x in numbers], expected, atol=5e-4)


@pytest.mark.slow
def test_a_missing_fold_is_told_and_leaves_the_other_pairs(done, tmp_path):
    plan, directory = done
    copy = tmp_path / "study"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("checkpoints"))
    home = copy / "arms" / "learning_rate=0.03,fold=1"
    (home / "result.json").unlink()
    (home / "error.txt").write_text("ValueError: no luck")
    labels = {name: arm["labels"] for name, arm in plan.facts["arms"].items()}
    studies.write_results.write_results(copy, labels, plan.facts["axes"], 3)
    record = study_files.read_study(copy)
    assert record.errors == {"learning_rate=0.03": "fold 1: ValueError: no luck"}
    values = study_results.select_values(record, "kind/accuracy")
    assert values.isna().to_numpy().tolist() == [[False] * 3, [False, True, False]]
    assert data_frames.summarize_arms(record, "kind/accuracy").common.iloc[1] == 2


@pytest.mark.parametrize("split", [Split(), fdl.Config(Split, folds=4), {"a": [Split(folds=4)]}])
def test_a_fold_is_set_wherever_the_split_is(split):
    base = folded_study.experiment.as_buildable()
    base.data = fdl.Config(folded_study.make_own, split, folds=4)
    changed = set_fold(base, 4, 3).data
    assert (changed.folds, changed.fold, base.data.fold) == (4, 3, 0)
    inner = changed.seed["a"][0] if isinstance(split, dict) else changed.seed
    assert (inner.folds, inner.fold) == (4, 3)


@pytest.mark.parametrize(
    "settings, folds, message",
    [
        (["data=tests.study.folded_study:make_plain()"], 3, "its data set has none; give the data"),
        (["data=tests.study.folded_study:make_own(0, folds=4)"], 3, "its data set has folds=4"),
        ([], 1, "folds=1; give at least 2"),
        ([], 2, "fold 0 of 2: give at least 3 folds"),
        (["data.splits.split.column='kind'"], 3, "not stratified or in folds"),
    ],
)
def test_what_cannot_have_folds_is_refused(settings, folds, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        make_plan(dataclasses.replace(STUDY, folds=folds), settings)
