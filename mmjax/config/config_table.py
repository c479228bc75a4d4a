"""A configuration as a table of paths, types and values, defaults included."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax.config import public_names, type_checks, type_hints
from mmjax.config.errors import ConfigError
from mmjax.printing.table_layout import align_columns


class ConfigRow(NamedTuple):
    """One path that can be set, with its type and its value as text."""

    path: str
    type: str
    value: str


class ConfigDifference(NamedTuple):
    """A path at which two configurations differ; None where one of them lacks it."""

    path: str
    first: str | None
    second: str | None


def list_config_rows(config: fdl.Buildable) -> list[ConfigRow]:
    """Lists every path of a configuration, in the order of its parameters.

    Raises:
      ConfigError: it is nested too deeply, as only a damaged one is.

    Example:
      >>> import optax
      >>> list_config_rows(fdl.Config(optax.sgd, 0.1))[0]
      ConfigRow(path='learning_rate', type='float | Callable', value='0.1')
    """
    try:
        return [row for row in _iterate_rows("", Any, config) if row.path]
    except RecursionError:
        raise ConfigError("the configuration is nested too deeply.") from None


def flatten_config(config: fdl.Buildable) -> dict[str, str]:
    """Returns {path: value}, defaults included; a call's value is the name of its function."""
    return {"": format_value(config)} | {row.path: row.value for row in list_config_rows(config)}


def find_config_differences(first: fdl.Buildable, second: fdl.Buildable) -> list[ConfigDifference]:
    """Lists the paths at which two configurations differ."""
    a, b = flatten_config(first), flatten_config(second)
    differences = []
    for path in dict.fromkeys([*a, *b]):
        if a.get(path) != b.get(path):
            differences.append(ConfigDifference(path, a.get(path), b.get(path)))
    return differences


def format_config_rows(rows: list[ConfigRow]) -> str:
    """Formats the rows as aligned columns, one row per line."""
    return "\n".join(align_columns(rows))


def format_value(value: Any) -> str:
    """Formats a value as a user would type it."""
    if value is fdl.NO_VALUE:
        return "(required)"
    if isinstance(value, fdl.Buildable):
        return _format_call(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {format_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(format_value, value))}{',' * (len(value) == 1)})"
    if hasattr(value, "__qualname__"):
        return public_names.format_public_name(value)
    return _format_record(value) if _is_record(value) else repr(value)


def _format_call(config: fdl.Buildable) -> str:
    """Formats a call without its arguments, which have rows of their own."""
    function = fdl.get_callable(config)
    inside = "..." if config.__arguments__ or type_hints.list_parameters(function) else ""
    call = f"{public_names.format_public_name(function)}({inside})"
    return call if isinstance(config, fdl.Config) else f"partial {call}"


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or (
        isinstance(value, tuple) and hasattr(value, "_fields")
    )


def _format_record(value: Any) -> str:
    """Formats a data class or named tuple as the call that makes it, without default fields."""
    given = (f"{k}={format_value(v)}" for k, v in type_hints.find_changed_fields(value).items())
    return f"{type(value).__name__}({', '.join(given)})"


def _iterate_rows(path: str, annotation: Any, value: Any) -> Iterator[ConfigRow]:
    """Yields the row of a value, then those of its parts."""
    value = type_hints.expand_default(value)
    parts = list(_iterate_parts(annotation, value))
    if isinstance(value, fdl.Buildable) or not parts:
        yield ConfigRow(path, type_hints.format_type(annotation), format_value(value))
    for key, inner, part in parts:
        yield from _iterate_rows(f"{path}.{key}" if path else str(key), inner, part)


def _iterate_parts(annotation: Any, value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yields (key, annotation, value) of the parts of a call, or of a container with calls."""
    if isinstance(value, fdl.Buildable):
        yield from _iterate_arguments(value)
    elif isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and type_checks.contains_buildable(value)
    ):
        yield from type_hints.iterate_elements(annotation, value)


def _iterate_arguments(config: fdl.Buildable) -> Iterator[tuple[Any, Any, Any]]:
    """Yields (key, annotation, value) of a call's arguments, defaults included."""
    known = type_hints.list_parameters(fdl.get_callable(config))
    for key, parameter in known.items():
        default = (
            type_hints.make_default(parameter.factory) if parameter.factory else parameter.default
        )
        value = config.__arguments__.get(key, default)
        if value is not fdl.NO_VALUE or isinstance(config, fdl.Config):  # A partial may lack some.
            yield key, parameter.annotation, value
    for key, value in config.__arguments__.items():
        if key not in known:
            yield key, Any, value
