"""Contributions of a trained model: the values behind the measures, and the command."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax import files
from mmjax.modalities.contribution.describe_contribution import describe_contribution
from mmjax.modalities.contribution.measure_run import choose_metrics, measure_contribution
from mmjax.modalities.contribution.measures import group_by_measure
from mmjax.modalities.contribution.write_contribution import convert_to_json, write_contribution
from mmjax.runs.trained import make_trained
from mmjax.train.steps.eval_step import make_eval_step

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def trained(toy):
    """Two seeds of the untrained model."""
    experiment = toy.experiment()
    batch = toy.batch(4, 0)

    def init(key):
        return experiment.model.init(key, *batch[:3], train=False)

    return make_trained(experiment, jax.vmap(init)(jax.random.split(jax.random.key(0), 2)), (3, 5))


@pytest.fixture(scope="module")
def measured(trained):
    metrics = ["kind/accuracy", "size/rmse"]
    return measure_contribution(
        trained, trained.experiment.data, metrics=metrics, permutations=1, sample=12, resamples=3
    )


@pytest.mark.slow
def test_the_value_of_all_modalities_is_that_of_an_evaluation(trained, measured):
    from mmjax.train.evaluation import summarize_statistics

    batch = jax.tree.map(jax.numpy.asarray, trained.experiment.data.splits["test"].batch)
    for i in range(2):
        variables = jax.tree.map(lambda x, i=i: x[i], dict(trained.variables))
        statistics = jax.device_get(make_eval_step(trained.model)(variables, batch))
        expected = summarize_statistics(trained.model, statistics)
        for name, estimates in measured.metrics.items():
            found = estimates["subset", "sequence+vector"].seeds[i]
            assert found == pytest.approx(expected[name], rel=1e-5)


@pytest.mark.slow
def test_the_measures_of_a_metric_belong_together(measured):
    assert measured.modalities == ("sequence", "vector")
    assert measured.directions == {"kind/accuracy": "max", "size/rmse": "min"}
    for name, estimates in measured.metrics.items():
        sign = 1 if measured.directions[name] == "max" else -1
        groups = group_by_measure(estimates)
        shapley = sum(value.mean for value in groups["shapley"].values())
        gain = groups["subset"]["sequence+vector"].mean - groups["subset"]["none"].mean
        assert shapley == pytest.approx(sign * gain, abs=1e-9)
        assert set(groups["probe"]) == set(groups["permutation"]) == {"sequence", "vector"}
        for estimate in estimates.values():
            assert np.mean(estimate.seeds) == pytest.approx(estimate.mean)


def test_an_unknown_metric_and_a_split_are_refused(trained):
    with pytest.raises(ValueError, match="'kind/f1'"):
        choose_metrics(trained, ["kind/f1"])
    with pytest.raises(ValueError, match="no split 'dev'"):
        measure_contribution(trained, trained.experiment.data, split="dev")
    model = trained.model.clone(encoders={"vector": trained.model.encoders["vector"]})
    alone = dataclasses.replace(trained, model=model)
    with pytest.raises(ValueError, match="'vector' alone"):
        measure_contribution(alone, trained.experiment.data)


@pytest.mark.slow
def test_files_and_words(measured, tmp_path):
    write_contribution(tmp_path / "new", measured)
    stored = files.read_json(tmp_path / "new" / "contribution.json")
    assert stored == json.loads(json.dumps(convert_to_json(measured)))
    value = measured.metrics["size/rmse"]["shapley", "vector"].mean
    assert stored["metrics"]["size/rmse"]["shapley"]["vector"]["mean"] == value
    page = (tmp_path / "new" / "contribution.md").read_text()
    assert "Shapley value of vector" in page
    assert (tmp_path / "new" / "contribution.png").read_bytes().startswith(b"\x89PNG")
    text = describe_contribution(measured)
    assert text.count("from all modalities") == 2


FILE = """
import optax
from mmjax import Experiment, Model, auto_config, cli, data, encoders, fusion, heads, sharing

@auto_config
def experiment():
    return Experiment(
        data=data.interactions(
            modalities=("vector", "vector"), uniqueness=(1.0, 0.0), synergy=0.0, redundancy=0.0,
            train=512, validation=128, test=256, width=4,
        ),
        model=Model(
            encoders={"a": encoders.MLPEncoder((16,)), "b": encoders.MLPEncoder((16,))},
            fusion=fusion.Concat(),
            heads={"uniqueness_a": heads.Classification(2)},
        ),
        optimizer=optax.adam(1e-2),
        modality_dropout=0.2,
        epochs=4,
    )

if __name__ == "__main__":
    cli.main(experiment)
"""


@pytest.mark.slow
def test_the_command_finds_the_modality_that_does_all_of_the_work(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    }

    def call(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    call("mine.py", "--workdir", "run", "--seeds", "0", "1")
    (tmp_path / "mine.py").unlink()
    script = "import sys; from mmjax.cli import script; script(sys.argv[1:])"
    options = ("--resamples", "50", "--permutations", "2", "--sample", "64")
    shown = call("-c", script, "contribution", "run", *options)
    assert "a does all of the work" in " ".join(shown.split())
    stored = json.loads((tmp_path / "run/all/contribution/contribution.json").read_text())
    measures = stored["metrics"]["uniqueness_a/accuracy"]
    assert measures["shapley"]["a"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert measures["shapley"]["b"]["mean"] == pytest.approx(0.0, abs=0.02)
    assert measures["permutation"]["b"]["mean"] == pytest.approx(0.0, abs=0.02)
    assert measures["additive gap"][""]["mean"] == pytest.approx(0.0, abs=0.02)
    assert measures["probe"]["a"]["mean"] > 0.97 and measures["probe"]["b"]["mean"] < 0.65
    assert stored["information"]["uniqueness_a"][0]["unique_first"] > 0.9
