"""Type annotations: which values the parameters of a callable accept."""

import collections.abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import fiddle as fdl


class Parameter(NamedTuple):
    """One parameter of a callable: its annotation (Any if unknown) and its default, if any."""

    annotation: Any
    default: Any = fdl.NO_VALUE
    factory: Callable[[], Any] | None = None


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Lists the named parameters of a callable that a configuration may set."""
    hints = annotations(function)
    fields = getattr(function, "__dataclass_fields__", {})
    return {
        name: _parameter(p, hints.get(name, Any), fields.get(name))
        for name, p in inspect.signature(function).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and not _hidden(function, name)
    }


def variable(function: Callable[..., Any], kind: Any) -> Any:
    """Returns the annotation of *args (kind VAR_POSITIONAL) or **kwargs (kind VAR_KEYWORD)."""
    known = annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is kind:
            return known.get(name, Any)
    return Any


def takes(function: Callable[..., Any], kind: Any) -> bool:
    """Checks whether a callable has a parameter of a kind such as `VAR_KEYWORD`."""
    return any(p.kind is kind for p in inspect.signature(function).parameters.values())


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the annotations of a callable's parameters; unresolvable ones become Any."""
    target: Any = function
    if isinstance(function, type) and not _declares_fields(function):
        target = function.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # An annotation may name what only a type checker imports.
        raw = getattr(target, "__annotations__", {})
        return {k: Any if isinstance(v, str) else v for k, v in raw.items()}


def accepts(annotation: Any, value: Any) -> bool:
    """Checks whether a parameter of that annotation accepts the value; unknown types accept any.

    An int is accepted as a float; a bool is not accepted as an int. A configured call is judged by
    the class that it makes.

    Example:
      >>> accepts(float | None, 3), accepts(int, True), accepts(tuple[int, ...], (1, "a"))
      (True, False, False)
    """
    return any(_accepts(member, value) for member in members(annotation))


def takes_objects(annotation: Any) -> bool:
    """Checks whether a parameter accepts functions, classes or their instances, but no strings.

    Numbers, strings and containers are typed as literals; if the type is unknown, a value is not
    taken for the name of an object.
    """
    return not accepts(annotation, "") and any(map(_is_object_type, members(annotation)))


def _is_object_type(annotation: Any) -> bool:
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return kind is collections.abc.Callable
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return True
    if hasattr(kind, "dtype") or hasattr(kind, "array_type"):  # arrays, which are typed as numbers
        return False
    plain = (str, bytes, int, float, complex, types.NoneType, collections.abc.Collection)
    return not issubclass(kind, plain)


def is_container(annotation: Any) -> bool:
    """Checks whether an annotation is that of a list, tuple, dict or other container."""
    kind = typing.get_origin(annotation) or annotation
    return (
        isinstance(kind, type)
        and issubclass(kind, tuple | list | Sequence | Mapping)
        and (kind not in (str, bytes))
    )


def element(annotation: Any, key: Any) -> Any:
    """Returns the annotation of the element of a container under `key`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return Any
    if issubclass(origin, Mapping):
        return arguments[1]
    if origin is tuple and Ellipsis not in arguments:
        return arguments[key] if isinstance(key, int) and key < len(arguments) else Any
    return arguments[0] if issubclass(origin, Sequence) else Any


def show_type(annotation: Any) -> str:
    """Formats an annotation for users, without module names; "" if it is unknown.

    Example:
      >>> show_type(tuple[int, ...] | None)
      'tuple[int, ...] | None'
    """
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(map(repr, typing.get_args(annotation)))
    if origin in (typing.Union, types.UnionType):
        return _show_union(typing.get_args(annotation))
    if origin is collections.abc.Callable:
        return "Callable"
    if origin is collections.abc.Mapping:
        return f"Mapping[{', '.join(map(show_type, typing.get_args(annotation)))}]"
    if annotation in (Any, object) or isinstance(annotation, typing.ForwardRef | str):
        return ""
    text = inspect.formatannotation(annotation).replace("NoneType", "None")
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _show_union(members: tuple[Any, ...]) -> str:
    """Formats a union; if it has float, other numbers and arrays are left out as obvious."""
    names = list(dict.fromkeys(map(show_type, members)))
    if "float" in names:
        names = [name for name in names if name in ("float", "str", "None", "Callable")]
    return "" if "" in names else " | ".join(names)


def holds_buildable(value: Any) -> bool:
    """Checks whether a value is a configured call or a container that holds one."""
    if isinstance(value, fdl.Buildable):
        return True
    values = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(map(holds_buildable, values))


def made(factory: Callable[[], Any]) -> Any:
    """Makes a default from its factory: as a configured call, if the factory has a name."""
    named = inspect.isfunction(factory) or isinstance(factory, type)
    if named and factory.__module__ != "builtins" and factory.__name__ != "<lambda>":
        return fdl.Config(factory)
    return factory()


def opened(value: Any) -> Any:
    """Converts a data class instance to the call that would make it, so that its fields show."""
    if isinstance(value, fdl.Buildable | type) or not dataclasses.is_dataclass(value):
        return value
    return fdl.Config(type(value), **changed_fields(value))


def changed_fields(value: Any) -> dict[str, Any]:
    """Returns the fields of a data class or named tuple that differ from their defaults."""
    known = parameters(type(value))
    changed = {}
    for name, parameter in known.items():
        current = getattr(value, name)
        if parameter.factory or current != parameter.default:
            changed[name] = current
    return changed


def _parameter(parameter: inspect.Parameter, annotation: Any, field: Any) -> Parameter:
    factory = getattr(field, "default_factory", None)
    if callable(factory):
        return Parameter(annotation, factory=factory)
    unset = parameter.default is parameter.empty
    return Parameter(annotation, fdl.NO_VALUE if unset else parameter.default)


def _hidden(function: Callable[..., Any], name: str) -> bool:
    """Checks whether Flax sets a parameter itself: each module's parent and name."""
    import flax.linen as nn

    is_module = isinstance(function, type) and issubclass(function, nn.Module)
    return is_module and name in ("parent", "name")


def _declares_fields(cls: type) -> bool:
    return hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")


def members(annotation: Any) -> tuple[Any, ...]:
    """Lists the alternatives of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _accepts(annotation: Any, value: Any) -> bool:
    if isinstance(value, fdl.Buildable):
        return _accepts_result(annotation, value)
    if holds_buildable(value):
        origin = typing.get_origin(annotation) or annotation
        return not _is_plain_class(origin) or (
            isinstance(value, origin) and _accepts_items(annotation, value)
        )
    if isinstance(value, bool) and annotation in (int, float):
        return False
    return _is_bearable(annotation, value) and _accepts_items(annotation, value)


def _accepts_items(annotation: Any, value: Any) -> bool:
    """Checks every item, since beartype checks only one of them."""
    if isinstance(value, Mapping):
        return all(accepts(element(annotation, k), v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(accepts(element(annotation, i), v) for i, v in enumerate(value))
    return True


def _is_bearable(annotation: Any, value: Any) -> bool:
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    try:
        return is_bearable(value, annotation, conf=BeartypeConf(is_pep484_tower=True))
    except Exception:  # An annotation that beartype does not know forbids nothing.
        return True


def _accepts_result(annotation: Any, config: fdl.Buildable) -> bool:
    """Checks whether a configured call makes what the annotation asks for, if classes can tell."""
    result = _result(config)
    wanted = typing.get_origin(annotation) or annotation
    if wanted is typing.Literal:
        return False
    return result is None or not _is_plain_class(wanted) or issubclass(result, wanted)


def _is_plain_class(kind: Any) -> bool:
    """Checks whether a subclass test suffices: not for Any, protocols and jaxtyping's arrays."""
    if kind is Any or not isinstance(kind, type) or hasattr(kind, "array_type"):
        return False
    return not getattr(kind, "_is_protocol", False)


def _result(config: fdl.Buildable) -> type | None:
    """Returns the class that a configured call makes, if it is known."""
    function: Any = fdl.get_callable(config)
    if not isinstance(config, fdl.Config):
        return None
    result = function if isinstance(function, type) else annotations(function).get("return")
    if typing.get_origin(result) is collections.abc.Callable:
        return typing.get_origin(result)
    return result if _is_plain_class(result) else None
