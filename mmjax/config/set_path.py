"""Sets one path of a configuration: `apply_setting(config, "epochs=20")`."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import fiddle as fdl
from fiddle import daglish

from mmjax.config import config_table, parse, public_names, type_checks, type_hints, typed_calls
from mmjax.config.errors import ConfigError
from mmjax.config.literal_limits import check_is_unicode, shorten_for_message

_Reader = Callable[[Any, Any, Any], Any]  # (node, annotation, current value) -> new value


def apply_setting(config: fdl.Buildable, setting: str) -> fdl.Buildable:
    """Returns a copy of the configuration with one path set.

    A path is written with dots: parameters by name, entries of a dict by key, those of a list or
    tuple and variable arguments by number, as in `optimizer.0.max_norm=1.0`. The value is a
    literal, a word, or a call of a public name. `None` removes an entry of a dict.

    Raises:
      ConfigError: no such path, or a value that it does not accept.

    Example:
      >>> import optax
      >>> config = fdl.Config(optax.sgd, 0.1)
      >>> apply_setting(config, "momentum=0.9").momentum
      0.9
    """
    path, equals, text = setting.partition("=")
    path = path.strip()
    shortened = shorten_for_message(setting)
    check_is_unicode("--set", setting)
    if not equals or not path or not text.strip():
        raise ConfigError(f"--set {shortened!r}: expected PATH=VALUE, as in epochs=20.")
    if "" in path.split("."):
        raise ConfigError(f"--set {shortened}: the path has an empty part; expected PATH=VALUE.")
    new = _copy_structure(config)
    destination = _Destination(new, path)
    try:
        read = _make_reader(text.strip(), path)
        _set_value(new, path.split("."), type_hints.Parameter(Any), read, destination)
    except ConfigError as error:
        raise ConfigError(f"--set {shortened}: {error}") from error
    return new


def replace_value(config: fdl.Buildable, path: str, value: Any) -> fdl.Buildable:
    """Returns a copy of the configuration with a value at one path; its type is not checked.

    Raises:
      ConfigError: no such path.
    """
    new = _copy_structure(config)
    _set_value(
        new, path.split("."), type_hints.Parameter(Any), lambda *_: value, _Destination(new, path)
    )
    return new


def _copy_structure(config: fdl.Buildable) -> fdl.Buildable:
    """Copies the calls and containers of a configuration, but not the objects that they hold."""

    def copied(value: Any, state: daglish.State) -> Any:
        return state.map_children(value) if state.is_traversable(value) else value

    return daglish.MemoizedTraversal.run(copied, config)


@dataclasses.dataclass(frozen=True)
class _Destination:
    """The path that a setting sets, for messages."""

    root: fdl.Buildable
    path: str

    def unknown(self, segment: str, valid: list[str]) -> ConfigError:
        """Makes the error for a path that does not exist."""
        paths = [row.path for row in config_table.list_config_rows(self.root)]
        near = public_names.did_you_mean(self.path, paths)
        segment, path = shorten_for_message(segment), shorten_for_message(self.path)
        choices = f" Valid instead of '{segment}': {', '.join(valid) or 'nothing'}."
        return ConfigError(f"no path '{path}'.{near}{choices}")


def _set_value(
    node: Any, segments: list[str], declared: type_hints.Parameter, read: _Reader, at: _Destination
) -> Any:
    """Sets a path inside of a node, and returns the node; immutable containers are rebuilt."""
    segment, *rest = segments
    key, inner = _find_key(node, segment, declared.annotation, last=not rest, at=at)
    # A default is made explicit before a path inside of it is set.
    if rest:
        value = _set_value(
            type_hints.expand_default(_get_value(node, key, inner)), rest, inner, read, at
        )
    else:
        value = read(node, inner.annotation, _get_value(node, key, inner))
        if isinstance(node, dict) and value is None:
            return _remove_entry(node, key, at)
    return _put_value(node, key, value)


def _find_key(
    node: Any, segment: str, annotation: Any, *, last: bool, at: _Destination
) -> tuple[str | int, type_hints.Parameter]:
    """Returns the key that a segment of a path stands for, and its declared parameter."""
    if isinstance(node, fdl.Buildable):
        return _find_parameter(node, segment, at)
    if isinstance(node, Mapping):
        keys: dict[str, Any] = {str(k): k for k in node}
        if segment not in keys and not last:
            raise at.unknown(segment, list(keys))
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        keys = {name: i for i, name in enumerate(node._fields)}
    else:
        keys = {str(i): i for i in range(len(node))} if isinstance(node, list | tuple) else {}
    if segment not in keys and not isinstance(node, Mapping):
        raise at.unknown(segment, list(keys))
    key = keys.get(segment, segment)
    return key, type_hints.Parameter(type_hints.get_element_annotation(annotation, key))


def _find_parameter(
    node: fdl.Buildable, segment: str, at: _Destination
) -> tuple[str | int, type_hints.Parameter]:
    function = fdl.get_callable(node)
    known = type_hints.list_parameters(function)
    positions = [k for k in node.__arguments__ if isinstance(k, int)]
    if segment in known:
        return segment, known[segment]
    # fiddle stores the arguments of *args under their positions.
    if segment in map(str, positions):
        return int(segment), type_hints.Parameter(
            type_hints.find_variadic_annotation(function, inspect.Parameter.VAR_POSITIONAL)
        )
    if (
        segment.isidentifier()
        and not segment.startswith("_")
        and type_hints.has_parameter_kind(function, inspect.Parameter.VAR_KEYWORD)
    ):
        return segment, type_hints.Parameter(
            type_hints.find_variadic_annotation(function, inspect.Parameter.VAR_KEYWORD)
        )
    raise at.unknown(segment, [*known, *map(str, positions)])


def _get_value(node: Any, key: str | int, declared: type_hints.Parameter) -> Any:
    """Returns the value at a key: the one set, or the default, or `fdl.NO_VALUE`."""
    if not isinstance(node, fdl.Buildable):
        return node.get(key, fdl.NO_VALUE) if isinstance(node, Mapping) else node[key]
    if key in node.__arguments__:
        return node.__arguments__[key]
    return (
        type_hints.make_default(declared.factory)
        if declared.factory
        else copy.copy(declared.default)
    )


def _put_value(node: Any, key: Any, value: Any) -> Any:
    if isinstance(node, fdl.Buildable) and isinstance(key, str):
        setattr(node, key, value)
        return node
    # Tuples are immutable, so the parent gets a new one.
    if isinstance(node, tuple):
        items = [*node[:key], value, *node[key + 1 :]]
        return type(node)(*items) if hasattr(node, "_fields") else tuple(items)
    if isinstance(node, Mapping) and not isinstance(node, dict):
        return {**node, key: value}
    node[key] = value
    return node


def _remove_entry(node: dict[Any, Any], key: Any, at: _Destination) -> dict[Any, Any]:
    if key not in node:
        raise at.unknown(key, list(map(str, node)))
    del node[key]
    return node


def _read_value(text: str, annotation: Any, current: Any, path: str) -> Any:
    """Parses a value by the annotation and the current value of its path."""
    candidates = parse.parse_candidates(text, annotation)
    if _is_call_or_callable(current) and not _takes_strings(annotation):
        candidates = [c for c in candidates if not isinstance(c, str)] or [
            parse.resolve_checked_name(text)
        ]
    for value in candidates:
        if type_checks.accepts_value(annotation, value):
            return value
    value = candidates[-1]
    if callable(value) and _is_call_or_callable(current):
        raise ConfigError(f"{path} takes what {text} makes: write {text}().")
    typed_calls.check_value_type(path, annotation, candidates[0])
    return value


def _make_reader(text: str, path: str) -> _Reader:
    """Makes a function that parses the text for a path; for an entry of a dict "None" is None."""

    def read(node: Any, annotation: Any, current: Any) -> Any:
        if isinstance(node, dict) and text == "None":
            return None
        return _read_value(text, annotation, current, path)

    return read


def _is_call_or_callable(current: Any) -> bool:
    return isinstance(current, fdl.Buildable) or callable(current)


def _takes_strings(annotation: Any) -> bool:
    """Checks whether an annotation names strings; an unknown type does not."""
    return annotation not in (Any, object) and type_checks.accepts_value(annotation, "")
