"""Of a stored configuration only the model is read: nothing else of it is trusted or built."""

import json
import sys
import types

import optax
import pytest

import mmjax
from mmjax import auxiliary, balance, data, encoders, fusion, heads
from mmjax.config import ConfigError, auto_config, dump_config
from mmjax.config.trust import Trust
from mmjax.runs.stored_model import build_stored_model, extract_model_config

NOT_THERE = types.ModuleType("not_there")  # a module that a loader may not import


def make_data():
    return data.interactions(train=64)


make_data.__module__ = "not_there"
NOT_THERE.make_data = make_data


@auto_config
def experiment():
    return mmjax.Experiment(
        data=NOT_THERE.make_data(),
        model=mmjax.Model(
            encoders={"a": encoders.MLPEncoder((8,))},
            fusion=fusion.Concat(),
            heads={"redundancy": heads.Classification(2)},
            missing="zeros",
            auxiliary={"same": auxiliary.DeepCCA()},
        ),
        optimizer=optax.adam(1e-3),
        balancer=balance.equal(),
        eval_batch_size=17,
        compute_dtype="bfloat16",
    )


@pytest.fixture
def text(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "not_there", NOT_THERE)
        return dump_config(experiment.as_buildable())


def test_only_the_model_is_extracted(text):
    model = extract_model_config(text)
    assert "not_there" in text and "DeepCCA" in text and "adam" in text
    for name in ("not_there", "DeepCCA", "adam", "auxiliary"):
        assert name not in json.dumps(list(json.loads(model)["objects"].values())), name


def test_the_model_needs_no_trust_if_only_the_data_do(text, tmp_path):
    stored = build_stored_model(tmp_path, tmp_path / "config.json", text, Trust())
    expected = experiment().model.clone(auxiliary={})
    assert stored.model == expected
    assert (stored.batch_size, stored.compute_dtype) == (17, "bfloat16")


def test_a_model_of_a_foreign_function_is_refused(text, tmp_path):
    hostile = text.replace('"name": "MLPEncoder"', '"name": "system"').replace(
        '"module": "mmjax.encoders"', '"module": "os"'
    )
    with pytest.raises(ConfigError, match="system of module 'os', which is not trusted"):
        build_stored_model(tmp_path, tmp_path / "config.json", hostile, Trust())


def test_another_configuration_is_built_as_a_whole(tmp_path):
    text = dump_config(experiment.as_buildable().model)
    assert build_stored_model(tmp_path, tmp_path / "config.json", text, Trust()) is None


@pytest.mark.parametrize(
    "damage",
    [
        "{}",
        '{"root": 1, "objects": {}}',
        "[",
        '{"root": {"type": "ref", "key": "x"}, "objects": {}}',
    ],
)
def test_damage_is_named(tmp_path, damage):
    with pytest.raises(ValueError, match="is damaged"):
        build_stored_model(tmp_path, tmp_path / "config.json", damage, Trust())
