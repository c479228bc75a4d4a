"""Stores a configuration as JSON, and loads one without trusting it.

The format is fiddle's. Names are stored as users write them (`optax.adam`, not the private module
that defines it), and those of the experiment's own file under a marker, since that file is
`__main__` in one run and a module in the next. Loading looks names up in the list of
`mmjax.config.constructors`; others must be of the experiment's own file or of modules that the user
allows. Calls must fit the parameters that they are given to, before any of them is made.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from fiddle import daglish
from fiddle.experimental import serialization

from mmjax.config.absolute_paths import make_paths_absolute
from mmjax.config.check_calls import check_calls
from mmjax.config.errors import ConfigError
from mmjax.config.references import (
    DESERIALIZATION_ERRORS,
    iterate_references,
    parse_stored_text,
    resolve_reference,
    to_public_reference,
)


def dump_config(config: Any, own: ModuleType | None = None) -> str:
    """Converts a configuration to JSON text; equal configurations made alike give equal text.

    Relative paths of data are stored as absolute ones.

    Args:
      config: the configuration.
      own: the module of the experiment's own file, if it is not the main module.

    Raises:
      ConfigError: it holds a value that cannot be stored, such as a local function or an array.
    """
    _register_constants()
    try:
        # Relative paths would refer to another file in another working directory.
        data = json.loads(serialization.dump_json(make_paths_absolute(config)))
    except (serialization.UnserializableValueError, AttributeError, ImportError) as error:
        raise ConfigError(
            f"this configuration cannot be stored: {str(error).splitlines()[0]} It may hold "
            "numbers, strings, containers, and functions and classes from the top of a file."
        ) from error
    except RecursionError:
        raise ConfigError("this configuration cannot be stored: it is nested too deeply.") from None
    # fiddle stores the place of definition; users and later versions know the public name.
    own_modules = {"__main__", own.__name__ if own else "__main__"}
    for reference in iterate_references(data):
        reference.update(to_public_reference(reference["module"], reference["name"], own_modules))
    return json.dumps(data)


def load_config(text: str, *, allow: Sequence[str] = (), own: ModuleType | None = None) -> Any:
    """Loads the configuration that `dump_config` stored.

    Args:
      text: the JSON text.
      allow: names of further modules whose functions and classes it may use.
      own: the experiment's own file, in which the names that it defined are looked up.

    Raises:
      ConfigError: damaged text, or a name of a module that is not allowed.

    Example:
      >>> import fiddle as fdl
      >>> import optax
      >>> load_config(dump_config(fdl.Config(optax.sgd, 0.1))).learning_rate
      0.1
    """
    data, references = parse_stored_text(text)
    # Before fiddle sees the text: a name that is neither listed nor allowed raises here, so fiddle
    # imports only the modules that this list resolved.
    known = [resolve_reference(reference, allow, own) for reference in references]
    try:
        config = serialization.load_json(json.dumps(data), _Policy(known))
    except DESERIALIZATION_ERRORS as error:
        raise ConfigError(f"the stored configuration is damaged: {error!r}.") from error
    # The graph holds calls, none of which has been made.
    check_calls(config)
    return config


class _Policy(serialization.PyrefPolicy):
    """Lets fiddle look up the references that have been resolved, and nothing else."""

    def __init__(self, known: Sequence[tuple[str, str]]) -> None:
        self.known = set(known)

    def allows_import(self, module: str, symbol: str) -> bool:
        return (module, symbol) in self.known

    def allows_value(self, value: Any) -> bool:
        return True


@cache
def _register_constants() -> None:
    """Registers with fiddle paths and callables that are not functions, such as jax.nn.relu."""
    serialization.register_node_traverser(
        type(Path()),
        flatten_fn=lambda path: ((str(path),), None),
        unflatten_fn=lambda values, _: Path(*values),
        path_elements_fn=lambda _: (daglish.Attr("path"),),
    )
    for module, name, _ in _list_callable_constants():
        serialization.register_constant(module, name, compare_by_identity=True)


@cache
def _list_callable_constants() -> list[tuple[str, str, Callable[..., Any]]]:
    import jax.nn
    import jax.numpy as jnp
    import optax

    plain = (type, FunctionType, ModuleType)
    return [
        (module.__name__, name, value)
        for module in (jax.nn, jnp, optax)
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, plain) and not name.startswith("_")
    ]
