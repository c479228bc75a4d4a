"""`auto_config`: a plain function that is also a configuration."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

from fiddle.experimental import auto_config as fiddle_auto_config

from mmjax.old_names import find_current_argument

_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


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
    made = fiddle_auto_config.auto_config(function, experimental_allow_control_flow=True)
    return dataclasses.replace(made, buildable_func=_explain_old_arguments(made.buildable_func))


def _explain_old_arguments(build: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the current name to the error of an argument that has been renamed."""

    @functools.wraps(build)
    def build_or_explain(*arguments: Any, **options: Any) -> Any:
        try:
            return build(*arguments, **options)
        except TypeError as error:
            unexpected = _UNEXPECTED.search(str(error))
            current = find_current_argument(unexpected[1]) if unexpected else None
            if current is None:
                raise
            raise TypeError(f"{error}; it is now called {current!r}.") from error

    return build_or_explain
