"""Objectives are settable and storable like any block."""

import optax
import pytest

from mmjax import config as configs
from mmjax.auxiliary import Decoders, InfoNCE, Reconstruction, Sown
from mmjax.config import ConfigError, auto_config
from mmjax.config.absolute_paths import make_paths_absolute
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Regression
from mmjax.model import Model


def nothing():
    return None


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=nothing(),
        model=Model(
            encoders={"x": MLPEncoder(), "y": MLPEncoder()},
            fusion=Concat(),
            heads={"size": Regression()},
            auxiliary={"align": InfoNCE(width=16)},
        ),
        optimizer=optax.adam(1e-3),
    )


def applied(*settings):
    config = experiment.as_buildable()
    for setting in settings:
        config = configs.apply_setting(config, setting)
    return config


def test_every_part_of_an_objective_has_a_path():
    config = applied(
        "model.auxiliary.align.temperature=0.2",
        "model.auxiliary.gates=Sown(part='sharing',name='entropy')",
        'model.auxiliary.tell=Reconstruction("x",decoders=Decoders(likelihoods={"y":"bernoulli"}))',
        "model.auxiliary.tell.decoders.hidden=(8,)",
    )
    made = configs.build_config(config.model).auxiliary
    assert made["align"] == InfoNCE(width=16, temperature=0.2)
    assert made["gates"] == Sown("sharing", "entropy")
    tell = made["tell"]
    assert (tell.source, dict(tell.decoders.likelihoods)) == ("x", {"y": "bernoulli"})
    assert tell.decoders.hidden == (8,)
    whole = applied("model.auxiliary={'match': auxiliary.MMD(bandwidths=(1.0, 2.0)), 'c': CORAL()}")
    assert sorted(configs.build_config(whole.model).auxiliary) == ["c", "match"]
    assert not configs.build_config(applied("model.auxiliary.align=None").model).auxiliary


def test_a_stored_objective_comes_back():
    config = applied("model.auxiliary.rest=MFM(width=4)").model
    again = configs.load_config(configs.dump_config(config))
    assert again == config
    assert configs.build_config(again).auxiliary["rest"].width == 4


def test_what_may_read_files_is_not_built_from_a_store_without_leave():
    setting = 'model.auxiliary.umt=Distillation(mmjax.runs.teacher:trained("runs/x","a"))'
    text = configs.dump_config(applied(setting).model)
    with pytest.raises(ConfigError, match=r"trained of module .* which is not trusted"):
        configs.load_config(text)
    again = configs.load_config(text, allow=["mmjax.runs.teacher"])
    assert again == make_paths_absolute(applied(setting).model)
    with pytest.raises(ConfigError, match="runs/x holds no run"):
        configs.build_config(again)
    with pytest.raises(ConfigError, match="unknown name 'trained'"):
        applied('model.auxiliary.umt=Distillation(trained("runs/x","a"))')


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.auxiliary.align.width=wide", "is 'wide'; expected int"),
        ("model.auxiliary.align=InfoNCEE()", "unknown name 'InfoNCEE'. Did you mean"),
        ("model.auxiliary.a=Sown('head','x')", "part=...) is 'head'; expected 'fusion'"),
        ("model.auxiliary.a=MMD(bandwith=(1.0,))", "no parameter 'bandwith'. Did you mean"),
    ],
)
def test_bad_settings_are_refused(setting, message):
    with pytest.raises(ConfigError) as refused:
        applied(setting)
    assert message in str(refused.value)


def test_default_decoders_are_each_objective_s_own():
    """One default object would give two objectives the same parameters."""
    assert Reconstruction().decoders is not Reconstruction().decoders
    assert Reconstruction().decoders == Decoders()
