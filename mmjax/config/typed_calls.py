"""Checks the arguments of a call that a user types, by the names and types of the parameters."""

import inspect
from collections.abc import Iterable
from typing import Any

import fiddle as fdl

from mmjax.config import public_names, type_checks, type_hints
from mmjax.config.errors import ConfigError
from mmjax.config.literal_limits import shorten_for_message


def list_callable_parameters(name: str, function: Any) -> dict[str, type_hints.Parameter]:
    """Returns the parameters of a function.

    Raises:
      ConfigError: if it cannot be called, or its parameters are unknown.
    """
    if not callable(function):
        raise ConfigError(f"{name} is a {type(function).__name__}, which cannot be called.")
    try:
        return type_hints.list_parameters(function)
    except (TypeError, ValueError):
        raise ConfigError(
            f"the parameters of {name} are unknown; call it in a function of your own."
        ) from None


def check_parameter_names(name: str, function: Any, given: Iterable[str]) -> None:
    """Refuses keywords that the function does not take."""
    if type_hints.has_parameter_kind(function, inspect.Parameter.VAR_KEYWORD):
        return
    valid = list(type_hints.list_parameters(function))
    for keyword in given:
        if keyword not in valid:
            near = public_names.did_you_mean(keyword, valid)
            takes = f" It takes: {', '.join(valid) or 'none'}."
            raise ConfigError(f"{name} has no parameter '{keyword}'.{near}{takes}")


def check_argument_types(name: str, config: fdl.Buildable) -> None:
    """Refuses a call whose arguments do not have the annotated types."""
    known = type_hints.list_parameters(fdl.get_callable(config))
    function = fdl.get_callable(config)
    for argument, value in config.__arguments__.items():
        if argument in known:
            check_value_type(f"{name}({argument}=...)", known[argument].annotation, value)
        elif isinstance(argument, int):
            kind = type_hints.find_variadic_annotation(function, inspect.Parameter.VAR_POSITIONAL)
            check_value_type(f"{name}: argument {argument}", kind, value)


def check_value_type(path: str, annotation: Any, value: Any) -> None:
    """Refuses a value that the annotation does not accept."""
    if not type_checks.accepts_value(annotation, value):
        expected = type_hints.format_type(annotation)
        raise ConfigError(
            f"{path} is {shorten_for_message(_format_value(value))}; expected {expected}"
            f"{_suggest_optimizer(expected, value)}."
        )


def _suggest_optimizer(expected: str, value: Any) -> str:
    """Suggests an optimizer if the user gave a number, probably the learning rate, instead."""
    if isinstance(value, int | float) and "GradientTransformation" in expected:
        return f", such as optax.adam({value})"
    return ""


def _format_value(value: Any) -> str:
    if isinstance(value, fdl.Buildable):
        return f"{public_names.format_public_name(fdl.get_callable(value))}(...)"
    return public_names.format_public_name(value) if callable(value) else repr(value)
