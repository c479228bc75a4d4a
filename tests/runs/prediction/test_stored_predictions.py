"""Stored predictions of two arms, compared on single examples: files, tables, `mmjax compare`."""

import argparse
import json

import jaxtyping
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from mmjax import files
from mmjax.cli.report_commands import compare_runs
from mmjax.report import study_files
from mmjax.report.example_tables import make_example_tables
from mmjax.report.render import render_markdown
from mmjax.runs.prediction.stored_predictions import compare_examples, read_test_predictions
from tests.report import synthetic


@pytest.fixture(autouse=True, scope="module")
def _no_annotations():
    """Thousands of resamples are fast only if shapes are not checked."""
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


CLASSES = np.array(["eight", "one", "zero"])


def write_predictions(home, seed, skill, examples=200, labels_seed=0):
    """Writes predictions whose classes are right with a probability of `skill`."""
    truth, rng = (
        np.random.default_rng(labels_seed),
        np.random.default_rng(100 * seed + len(home.name)),
    )
    kind = truth.integers(0, 3, examples)
    size = truth.normal(size=examples)
    labeled = truth.random(examples) < 0.8
    guess = np.where(rng.random(examples) < skill, kind, rng.integers(0, 3, examples))
    home.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(
        {
            "example": np.arange(examples),
            "digit/label": pd.Series(CLASSES[kind]).where(labeled),
            "digit/prediction": CLASSES[guess],
            "rate/label": np.where(labeled, size, np.nan),
            "rate/prediction": size + rng.normal(size=examples) * (1 - skill),
        }
    )
    frame.to_parquet(home / f"predictions-seed{seed}.parquet")
    return frame[labeled]


def test_values_are_scikit_learns_on_labeled_examples(tmp_path):
    frames = [
        [write_predictions(tmp_path / a, s, skill) for s in (0, 1)]
        for a, skill in (("a", 0.6), ("bb", 0.8))
    ]
    read = [read_test_predictions([tmp_path / a], "digit", (0, 1)) for a in ("a", "bb")]
    found = compare_examples("macro_f1", *read)

    def score(frame):
        return sk.f1_score(frame["digit/label"], frame["digit/prediction"], average="macro")

    means = [np.mean([score(frame) for frame in arm]) for arm in frames]
    assert found.bootstrap.difference == pytest.approx(means[1] - means[0])
    assert found.bootstrap.low < found.bootstrap.difference < found.bootstrap.high
    assert found.examples == len(frames[0][0])
    for seed, test in enumerate(found.mcnemar):
        right = [arm[seed]["digit/label"] == arm[seed]["digit/prediction"] for arm in frames]
        table = pd.crosstab(*right).to_numpy()
        assert test[:2] == (table[1, 0], table[0, 1])
    read = [read_test_predictions([tmp_path / a], "rate", (0, 1)) for a in ("a", "bb")]
    found = compare_examples("mae", *read)
    means = [
        np.mean([sk.mean_absolute_error(f["rate/label"], f["rate/prediction"]) for f in arm])
        for arm in frames
    ]
    assert found.bootstrap.difference == pytest.approx(means[1] - means[0])
    assert found.mcnemar == () and compare_examples("auroc", *read) is None
    assert read_test_predictions([tmp_path / "a"], "other", (0, 1)) is None
    assert read_test_predictions([tmp_path / "a"], "rate", (0, 7)) is None


def test_other_examples_and_damage_are_refused(tmp_path):
    write_predictions(tmp_path / "a", 0, 0.6)
    write_predictions(tmp_path / "b", 0, 0.6, labels_seed=1)
    one, other = (read_test_predictions([tmp_path / a], "digit", (0,)) for a in ("a", "b"))
    with pytest.raises(ValueError, match="of different test examples"):
        compare_examples("accuracy", one, other)
    write_predictions(tmp_path / "a", 1, 0.6, labels_seed=1)
    with pytest.raises(ValueError, match="the seeds' predictions are of different test examples"):
        read_test_predictions([tmp_path / "a"], "digit", (0, 1))
    path = tmp_path / "a" / "predictions-seed0.parquet"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(files.DamagedFileError, match=r"predictions-seed0.parquet is damaged"):
        read_test_predictions([tmp_path / "a"], "digit", (0,))


def test_a_report_compares_arms_with_stored_predictions(tmp_path):
    directory = synthetic.write_study(tmp_path / "study", seeds=(0, 1))
    record = study_files.read_study(directory)
    assert make_example_tables(record, directory) == []
    for arm, skill in (("concat-equal", 0.6), ("gated-equal", 0.95), ("gated-mgda", 0.6)):
        for seed in (0, 1):
            write_predictions(directory / "arms" / arm, seed, skill)
    write_predictions(directory / "arms" / "tensor-equal", 0, 0.5)  # not of all seeds
    examples, mcnemar = make_example_tables(record, directory)
    assert [row[0].text for row in examples.rows] == ["gated-equal", "gated-mgda"]
    assert [row[0].text for row in mcnemar.rows] == ["gated-equal"] * 2 + ["gated-mgda"] * 2
    assert [row[-1].text for row in mcnemar.rows[:2]] == ["< 0.001", "< 0.001"]
    assert "Conditional on the trained models" in render_markdown(examples)


def test_folds_are_joined_to_one_test_split(tmp_path):
    homes = {arm: [tmp_path / f"{arm},fold={k}" for k in range(3)] for arm in ("a", "bbb")}
    frames = {arm: [] for arm in homes}
    for arm, folds in homes.items():
        for k, home in enumerate(folds):
            frames[arm].append(write_predictions(home, 0, 0.7, 40 + k, labels_seed=k))
    read = [read_test_predictions(folds, "digit", (0,)) for folds in homes.values()]
    found = compare_examples("accuracy", *read)
    whole = [pd.concat(parts) for parts in frames.values()]
    right = [(f["digit/label"] == f["digit/prediction"]).mean() for f in whole]
    assert found.examples == len(whole[0])
    assert found.bootstrap.difference == pytest.approx(right[1] - right[0])


def test_compare_prints_the_tests_on_examples(tmp_path, capsys):
    for name, skill in (("first", 0.6), ("better", 0.95)):
        home = tmp_path / name
        write_predictions(home, 0, skill)
        (home / "config.json").write_text(json.dumps(synthetic.CONFIG))
        test = {"digit/accuracy": skill, "rate/mae": 1 - skill, "rate/loss": 1.0}
        seeds = {"0": {"test": test, "validation": {}, "best_step": 3, "steps": 3}}
        files.write_json(
            home / "result.json", {"seeds": seeds, "cost": {}, "parameters": {"total": 1}}
        )

    compare_runs(argparse.Namespace(directories=[tmp_path / "first", tmp_path / "better"]))
    told = " ".join(capsys.readouterr().out.split())
    assert "Difference to first on the same test examples" in told
    assert "digit McNemar, seed 0" in told and "(p < 0.001)" in told
    assert "rate/mae" in told and "Conditional on the trained models" in told
