"""`auto_config`: a plain function that is also a configuration."""

from collections.abc import Callable
from typing import Any

from fiddle.experimental import auto_config as fiddle_auto_config


def auto_config(function: Callable[..., Any]) -> fiddle_auto_config.AutoConfig:
    """Makes a function an experiment: calling it returns the objects that it makes.

    `function.as_buildable()` returns the graph of all calls in it instead, as a `fiddle.Config`
    whose arguments can be read, set and stored. Loops and comprehensions run as written; lambdas
    are refused: define a function beside the experiment.

    Example:
      >>> import optax
      >>> @auto_config
      ... def optimizer():
      ...     return optax.sgd(learning_rate=0.1)
      >>> optimizer.as_buildable().learning_rate
      0.1
    """
    return fiddle_auto_config.auto_config(function, experimental_allow_control_flow=True)
