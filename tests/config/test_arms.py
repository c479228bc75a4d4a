"""`auto_config`, `single_modality` and `single_task`."""

from typing import Any

import fiddle as fdl
import pytest

import mmjax
from mmjax import encoders, fusion, heads
from mmjax.config import (
    ConfigError,
    auto_config,
    build_config,
    experiment_source,
    flatten_config,
    single_modality,
    single_task,
)
from mmjax.model import Model


class Experiment:
    def __init__(self, data: Any, model: Model, epochs: int = 1) -> None:
        self.data, self.model, self.epochs = data, model, epochs


def make_data() -> Any:
    return object()


@auto_config
def experiment() -> Experiment:
    """Two modalities."""
    return Experiment(
        data=make_data(),
        model=Model(
            encoders={name: encoders.MLPEncoder() for name in ("a", "b")},
            fusion=fusion.Mean(width=4),
            heads={"t": heads.Regression()},
        ),
    )


def test_the_function_still_makes_the_objects() -> None:
    made = experiment()
    assert isinstance(made, Experiment) and list(made.model.encoders) == ["a", "b"]
    assert build_config(experiment.as_buildable()).model == made.model


def test_arms_have_the_weights_and_patterns_of_their_parts() -> None:
    parts = {"image": fdl.Config(encoders.MLPEncoder), "sound": fdl.Config(encoders.MLPEncoder)}
    config = fdl.Config(
        mmjax.Experiment,
        model=fdl.Config(Model, encoders=parts),
        init={"encoders_image": "a.npz", "encoders_sound/dense": "b.npz"},
        lora={"encoders_image/*": 1},
        trainable=("encoders_image/*", "heads_*"),
    )
    arms = single_modality(config)
    assert arms["sound"].init == {"encoders_sound/dense": "b.npz"}
    assert arms["sound"].lora == {} and arms["sound"].trainable == ("heads_*",)
    assert arms["image"].trainable == config.trainable and arms["image"].lora == config.lora
    assert arms["all"].init == config.init
    plain = fdl.Config(mmjax.Experiment, model=config.model)
    assert "init" not in single_modality(plain)["sound"].__arguments__


def test_each_arm_differs_in_its_encoders_alone() -> None:
    config = experiment.as_buildable()
    arms = single_modality(config)
    assert list(arms) == ["all", "a", "b"]
    assert arms["all"] == experiment.as_buildable()
    for name in "ab":
        rows = {
            p: v for p, v in flatten_config(config).items() if not p.startswith("model.encoders")
        }
        own = {
            p: v
            for p, v in flatten_config(arms[name]).items()
            if not p.startswith("model.encoders")
        }
        assert own == rows
        assert arms[name].model.encoders == {name: config.model.encoders[name]}
    assert list(config.model.encoders) == ["a", "b"]


def test_the_arms_share_their_data() -> None:
    built = build_config(single_modality(experiment.as_buildable()))
    assert built["all"].data is built["a"].data is built["b"].data


def test_one_modality_needs_no_arms() -> None:
    config = experiment.as_buildable()
    del config.model.encoders["b"]
    assert list(single_modality(config)) == ["all"]


def test_a_modality_called_all_is_refused() -> None:
    config = experiment.as_buildable()
    config.model.encoders["all"] = fdl.Config(encoders.MLPEncoder)
    with pytest.raises(ConfigError, match="'all'"):
        single_modality(config)


@auto_config
def two_tasks() -> Experiment:
    """One modality, two tasks."""
    return Experiment(
        data=make_data(),
        model=Model(
            encoders={"a": encoders.MLPEncoder()},
            fusion=fusion.Concat(),
            heads={"left": heads.Regression(), "right": heads.Regression(mean=2.0)},
        ),
    )


def test_each_task_alone_keeps_all_but_the_heads() -> None:
    config = two_tasks.as_buildable()
    arms = single_task(config)
    assert list(arms) == ["all", "left", "right"]
    built = build_config(arms)
    assert {a: list(e.model.heads) for a, e in built.items()} == {
        "all": ["left", "right"],
        "left": ["left"],
        "right": ["right"],
    }
    assert built["right"].model.heads["right"].mean == 2.0
    assert built["left"].model.encoders == built["all"].model.encoders
    assert built["left"].data is built["right"].data is built["all"].data
    assert list(config.model.heads) == ["left", "right"]


def test_one_task_needs_no_arms_and_none_may_be_called_all() -> None:
    config = two_tasks.as_buildable()
    del config.model.heads["left"]
    assert list(single_task(config)) == ["all"]
    config.model.heads["all"] = fdl.Config(heads.Regression)
    with pytest.raises(ConfigError, match="the task name 'all' is reserved"):
        single_task(config)


def test_the_record_of_a_run_may_name_the_arms_of_mmjax() -> None:
    for arms in (single_modality, single_task):
        assert (
            experiment_source.resolve_arms_reference(
                experiment_source.make_arms_reference(arms, None), None, ()
            )
            is arms
        )
    with pytest.raises(ConfigError, match="--allow os"):
        experiment_source.resolve_arms_reference("os:system", None, ())
