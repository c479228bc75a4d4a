"""Arguments that were renamed: old calls are refused by their new name, stored ones still load."""

import fiddle as fdl
import pytest

from mmjax.config import ConfigError, auto_config, dump_config, load_config
from mmjax.config.set_path import apply_setting
from mmjax.data import from_arrays, from_table, from_tfds
from mmjax.experiment import Experiment
from mmjax.runs.stored_settings import parse_settings

FUNCTIONS = (from_arrays, from_table, from_tfds)


def store_old(function, *arguments):
    """Returns a configuration as it was stored before the renaming."""
    data = fdl.Config(function, *arguments, standardize=["x"])
    text = dump_config(fdl.Config(Experiment, data))
    assert text.count("standardize") >= 3  # the call, the names of its arguments, and paths
    return text.replace("standardize", "standardise")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_call_by_the_old_name_is_refused(function):
    name = function.__name__
    message = rf"{name} has no argument 'standardise'; it is now called 'standardize'"
    with pytest.raises(TypeError, match=message):
        function("t.csv", {}, {}, standardise=())


@auto_config
def old():
    return from_table("t.csv", {}, {}, standardise=())


def test_an_experiment_by_the_old_name_is_refused():
    with pytest.raises(TypeError, match="'standardise'; it is now called 'standardize'"):
        old.as_buildable()
    config = fdl.Config(from_table, "t.csv", {}, {})
    with pytest.raises(ConfigError, match=r"Did you mean standardize"):
        apply_setting(config, "standardise=()")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_stored_configuration_gets_the_new_name(function):
    text = store_old(function, "t.csv", {"x": "x"}, {"y": "y"})
    loaded = load_config(text).data
    assert fdl.get_callable(loaded) is function and loaded.standardize == ["x"]
    assert parse_settings(text)["data.standardize"] == "['x']"


def test_other_uses_of_the_word_are_left_alone():
    config = fdl.Config(from_table, "t.csv", {"standardise": "x"}, {"y": "y"}, standardize=())
    loaded = load_config(dump_config(fdl.Config(Experiment, config))).data
    assert loaded.inputs == {"standardise": "x"} and loaded.standardize == ()
