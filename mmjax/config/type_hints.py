"""Type annotations: which values the parameters of a callable accept."""

import collections.abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import fiddle as fdl


class Parameter(NamedTuple):
    """One parameter of a callable: its annotation (Any if unknown) and its default, if any."""

    annotation: Any
    default: Any = fdl.NO_VALUE
    factory: Callable[[], Any] | None = None


def list_parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Lists the named parameters of a callable that a configuration may set."""
    hints = resolve_annotations(function)
    fields = getattr(function, "__dataclass_fields__", {})
    parameters = {}
    for name, p in inspect.signature(function).parameters.items():
        is_named = p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        if is_named and not _is_hidden(function, name):
            parameters[name] = _make_parameter(p, hints.get(name, Any), fields.get(name))
    return parameters


def find_variadic_annotation(function: Callable[..., Any], kind: Any) -> Any:
    """Returns the annotation of *args (kind VAR_POSITIONAL) or **kwargs (kind VAR_KEYWORD)."""
    known = resolve_annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is kind:
            return known.get(name, Any)
    return Any


def has_parameter_kind(function: Callable[..., Any], kind: Any) -> bool:
    """Checks whether a callable has a parameter of a kind such as `VAR_KEYWORD`."""
    return any(p.kind is kind for p in inspect.signature(function).parameters.values())


def resolve_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotations of a callable's parameters; unresolvable ones become Any."""
    target: Any = function
    if isinstance(function, type) and not _declares_fields(function):
        # Data classes and named tuples annotate their fields in the class, other classes in
        # __init__.
        target = function.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # An annotation may name what only a type checker imports.
        raw = getattr(target, "__annotations__", {})
        return {k: Any if isinstance(v, str) else v for k, v in raw.items()}


def is_container_type(annotation: Any) -> bool:
    """Checks whether an annotation is a list, tuple, dict or other container."""
    kind = typing.get_origin(annotation) or annotation
    return (
        isinstance(kind, type)
        and issubclass(kind, tuple | list | Sequence | Mapping)
        and (kind not in (str, bytes))
    )


def get_element_annotation(annotation: Any, key: Any) -> Any:
    """Returns the annotation of the element of a container under `key`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return Any
    if issubclass(origin, Mapping):
        return arguments[1]
    # tuple[A, B] has one annotation per position, tuple[A, ...] one for all of them.
    if origin is tuple and Ellipsis not in arguments:
        return arguments[key] if isinstance(key, int) and key < len(arguments) else Any
    return arguments[0] if issubclass(origin, Sequence) else Any


def find_element_annotation(annotation: Any, key: Any) -> Any:
    """Returns the annotation of the element of an optional container, or that of anything else."""
    # An optional container, such as `list[int] | None`, has one kind of element; with several kinds
    # of containers the element may be of any kind.
    containers = list(filter(is_container_type, list_union_members(annotation)))
    if len(containers) == 1:
        return get_element_annotation(containers[0], key)
    return Any if containers else annotation


def iterate_elements(annotation: Any, container: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yields (key, annotation, value) of the elements of a mapping, list, tuple or set."""
    items = container.items() if isinstance(container, Mapping) else enumerate(container)
    for key, value in items:
        yield key, get_element_annotation(annotation, key), value


def format_type(annotation: Any) -> str:
    """Formats an annotation for users, without module names; "" if it is unknown.

    Example:
      >>> format_type(tuple[int, ...] | None)
      'tuple[int, ...] | None'
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(repr, typing.get_args(annotation)))
    if origin in (typing.Union, types.UnionType):
        return _format_union(typing.get_args(annotation))
    if origin is collections.abc.Callable:
        return "Callable"
    if origin is collections.abc.Mapping:
        return f"Mapping[{', '.join(map(format_type, typing.get_args(annotation)))}]"
    if annotation in (Any, object) or isinstance(annotation, typing.ForwardRef | str):
        return ""
    text = inspect.formatannotation(annotation).replace("NoneType", "None")
    # Qualified names are shortened to their last part.
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _format_union(members: tuple[Any, ...]) -> str:
    """Formats a union; beside float, other numbers and arrays are omitted as obvious."""
    names = list(dict.fromkeys(map(format_type, members)))
    if "float" in names:
        names = [name for name in names if name in ("float", "str", "None", "Callable")]
    return "" if "" in names else " | ".join(names)


def make_default(factory: Callable[[], Any]) -> Any:
    """Makes a default from its factory: as a configured call, if the factory has a name."""
    named = inspect.isfunction(factory) or isinstance(factory, type)
    # A default that a named function makes is a call of it, so that paths inside of it can be set.
    if named and factory.__module__ != "builtins" and factory.__name__ != "<lambda>":
        return fdl.Config(factory)
    return factory()


def expand_default(value: Any) -> Any:
    """Converts a data class instance to the call that makes it, which shows its fields."""
    if isinstance(value, fdl.Buildable | type) or not dataclasses.is_dataclass(value):
        return value
    return fdl.Config(type(value), **find_changed_fields(value))


def find_changed_fields(value: Any) -> dict[str, Any]:
    """Returns the fields of a data class or named tuple that differ from their defaults."""
    known = list_parameters(type(value))
    changed = {}
    for name, parameter in known.items():
        current = getattr(value, name)
        if parameter.factory or current != parameter.default:
            changed[name] = current
    return changed


def _make_parameter(parameter: inspect.Parameter, annotation: Any, field: Any) -> Parameter:
    factory = getattr(field, "default_factory", None)
    if callable(factory):
        return Parameter(annotation, factory=factory)
    unset = parameter.default is parameter.empty
    return Parameter(annotation, fdl.NO_VALUE if unset else parameter.default)


def _is_hidden(function: Callable[..., Any], name: str) -> bool:
    """Checks whether Flax sets a parameter itself: each module's parent and name."""
    import flax.linen as nn

    is_module = isinstance(function, type) and issubclass(function, nn.Module)
    return is_module and name in ("parent", "name")


def _declares_fields(cls: type) -> bool:
    return hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")


def list_union_members(annotation: Any) -> tuple[Any, ...]:
    """Lists the alternatives of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
