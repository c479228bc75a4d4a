"""Checks the calls of a stored configuration before any of them is made."""

import types
from collections.abc import Mapping
from typing import Any, get_args

import fiddle as fdl

from mmjax.config import constructors, public_names, type_checks, type_hints
from mmjax.config.errors import ConfigError

_NUMBERS = (bool, int, float)
_SCALARS = (*_NUMBERS, str, types.NoneType)
_LITERALS = (*_SCALARS, Mapping, list, tuple)
# What handles configurations is recursive, with several calls of Python per level.
_MAX_DEPTH = 50


def check_calls(config: Any) -> None:
    """Refuses calls and literals that do not fit the parameters that get them.

    Literals are refused only where numbers, strings or None are expected and another kind is given:
    what Python takes for another type, such as a list for a tuple, has trained. Functions that make
    data sets read files, so they may be called only where a data set is expected. Arguments of
    functions that the user allows are not checked.

    Raises:
      ConfigError: naming the path of the call, or the configuration is nested too deeply.
    """
    _check_value("", Any, config, listed=True, seen=set())


def check_fields(config: fdl.Buildable, path: str = "") -> None:
    """Refuses arguments of a call, literals too, that its parameters do not accept.

    Raises:
      ConfigError: naming the path of the argument.
    """
    known = type_hints.list_parameters(fdl.get_callable(config))
    for name, value in config.__arguments__.items():
        annotation = known[name].annotation if name in known else Any
        if not type_checks.accepts_value(annotation, value):
            raise _make_type_error(f"{path}.{name}".strip("."), annotation, value)


def _check_value(
    path: str, annotation: Any, value: Any, *, listed: bool, seen: set[int], depth: int = 0
) -> None:
    """Checks a value and, recursively, its parts.

    Args:
      path: its path in the configuration.
      annotation: the annotation of the parameter that gets it.
      value: the value.
      listed: whether the function that gets it is a public one, not one that the user allows.
      seen: identities of the calls whose arguments have been checked.
      depth: number of calls and containers around it.
    """
    if depth > _MAX_DEPTH:
        raise ConfigError(
            f"the configuration is nested too deeply; {_MAX_DEPTH} levels are the most."
        )
    if isinstance(value, fdl.Buildable):
        function = fdl.get_callable(value)
        damaged = f"the stored configuration is damaged: {path or 'its outermost call'}"
        if not callable(function) or isinstance(function, fdl.Buildable):
            raise ConfigError(f"{damaged} calls no function.")
        for key in value.__arguments__:
            if not isinstance(key, str | int):
                raise ConfigError(f"{damaged} has an argument named {key!r}.")
        # Outer calls first: the message names the call that the user sees first.
        _check_call(path, annotation, value, listed)
        # A shared call is checked once; else nested sharing would take exponential time.
        if id(value) not in seen:
            seen.add(id(value))
            _check_arguments(path, value, seen, depth + 1)
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        for key, inner, item in type_hints.iterate_elements(annotation, value):
            at = f"{path}.{key}".strip(".")
            _check_value(at, inner, item, listed=listed, seen=seen, depth=depth + 1)
    # Such a function could be called with arguments that nobody has checked.
    elif listed and callable(value) and constructors.is_data_constructor(value):
        raise ConfigError(
            f"{path} is the function {public_names.format_public_name(value)}, which reads files; "
            "a stored configuration may only call it for an experiment's data."
        )


def _check_arguments(path: str, config: fdl.Buildable, seen: set[int], depth: int) -> None:
    function = fdl.get_callable(config)
    known = type_hints.list_parameters(function)
    listed = constructors.is_constructor(function)
    for key, value in config.__arguments__.items():
        annotation = known[key].annotation if key in known else Any
        at = f"{path}.{key}".strip(".")
        _check_value(at, annotation, value, listed=listed, seen=seen, depth=depth)
        if listed:
            _check_literal(at, annotation, value)


def _check_literal(path: str, annotation: Any, value: Any) -> None:
    """Refuses a literal of another kind where only numbers, strings or None are expected."""
    expected = type_hints.list_union_members(annotation)
    if not isinstance(value, _LITERALS) or any(kind not in _SCALARS for kind in expected):
        return
    # Python takes the kinds of numbers for each other.
    is_number = isinstance(value, int | float) and any(kind in _NUMBERS for kind in expected)
    if not is_number and not type_checks.accepts_value(annotation, value):
        raise _make_type_error(path, annotation, value)


def _check_call(path: str, annotation: Any, config: fdl.Buildable, listed: bool) -> None:
    """Refuses a call whose result does not fit its parameter."""
    # A function of the user's own code may take anything.
    if not listed:
        return
    if constructors.is_data_constructor(fdl.get_callable(config)):
        from mmjax.data.dataset import Dataset

        if not isinstance(config, fdl.Config) or Dataset not in (annotation, *get_args(annotation)):
            raise ConfigError(
                f"{path or 'the configuration'} is {_format_call(config)}, which reads files; a "
                "stored configuration may only call it for an experiment's data."
            )
    elif not type_checks.accepts_value(annotation, config):
        raise _make_type_error(path, annotation, config)


def _make_type_error(path: str, annotation: Any, value: Any) -> ConfigError:
    text = _format_call(value) if isinstance(value, fdl.Buildable) else repr(value)[:60]
    return ConfigError(f"{path} is {text}; expected {type_hints.format_type(annotation)}.")


def _format_call(config: fdl.Buildable) -> str:
    return f"{public_names.format_public_name(fdl.get_callable(config))}(...)"
