"""`auto_config`: a plain function that is also a configuration."""

from collections.abc import Callable
from typing import Any

from fiddle.experimental import auto_config as fiddle_auto_config


def auto_config(function: Callable[..., Any]) -> fiddle_auto_config.AutoConfig:
    """Makes a function an experiment: calling it gives the objects that it makes.

    `function.as_buildable()` gives instead the graph of every call in it, as a `fiddle.Config`
    whose every argument can be read, set and stored. Loops and comprehensions run as written;
    lambdas are refused: define a function beside the experiment.
    """
    return fiddle_auto_config.auto_config(function, experimental_allow_control_flow=True)
