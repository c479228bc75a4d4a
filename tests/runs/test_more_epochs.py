"""A finished run that goes on for more epochs is one longer run, to the last bit."""

import json
import shutil
from pathlib import Path

import fiddle as fdl
import pytest

from mmjax import cli
from mmjax.config import dump_config
from mmjax.experiment import Experiment
from mmjax.runs.more_epochs import explain_refusal, has_more_epochs
from mmjax.runs.stored_run import StoredRun, find_run_differences

FILE = """
import optax
from mmjax import Experiment, Model, auto_config, data, encoders, fusion, heads

@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=data.interactions(train=256, validation=64, test=64),
        model=Model(
            encoders={"a": encoders.MLPEncoder((4,))},
            fusion=fusion.Concat(),
            heads={"redundancy": heads.Classification(2)},
        ),
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, 10)),
        ema=0.9,
        eval_every=2,
    )
"""


@pytest.mark.slow
def test_more_epochs_are_one_longer_run_bit_for_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FILE)
    start = ["run", "mine.py", "--devices", "1", "--no-compilation-cache", "--workdir"]
    cli.script([*start, "short", "--set", "epochs=2"])
    shutil.copytree("short", "longer")
    cli.script([*start, "longer", "--resume", "--set", "epochs=5"])
    cli.script([*start, "whole", "--set", "epochs=5"])
    for name in ("metrics-seed0.jsonl", "config.json"):
        assert Path("longer/all", name).read_bytes() == Path("whole/all", name).read_bytes()
    assert Path("longer/config.txt").read_text() == Path("whole/config.txt").read_text()
    results = [json.loads(Path(d, "all/result.json").read_text()) for d in ("longer", "whole")]
    assert results[0]["seeds"] == results[1]["seeds"]  # with the digests of all parameters
    for setting, reason in (("epochs=2", "epochs: stored 5, asked 2"), ("epochs=6", "epoch 5")):
        with pytest.raises(SystemExit):
            cli.script([*start, "longer", "--resume", "--set", setting])
        assert reason in capsys.readouterr().err
    kept = Path("longer/all/result-after-2-epochs.json")
    assert kept.read_bytes() == Path("short/all/result.json").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"epochs": 4}, {"epochs": 5}, ""),
        ({}, {"epochs": 11}, ""),
        ({"epochs": 4}, {"epochs": 3}, "only be continued for more"),
        ({"epochs": 3, "eval_every": 2}, {"epochs": 4, "eval_every": 2}, "validates after epoch 3"),
    ],
)
def test_only_more_epochs_are_taken(old, new, reason):
    stored, asked = fdl.Config(Experiment, **old), fdl.Config(Experiment, **new)
    assert reason in explain_refusal(stored, asked)
    assert has_more_epochs(stored, asked) == (reason == "")


def test_epochs_of_another_function_may_mean_anything():
    def make(epochs: int) -> Experiment:
        raise NotImplementedError

    assert not has_more_epochs(fdl.Config(make, epochs=1), fdl.Config(make, epochs=2))


def test_a_run_may_continue_under_another_sharding():
    def store(**options):
        config = dump_config(fdl.Config(Experiment, **options))
        return StoredRun("experiment", config, {"all": config}, None, (0,))

    stored = store(sharding="fsdp")
    assert find_run_differences(stored, store(), None) == []
    assert find_run_differences(stored, store(batch_size=8), None) != []
