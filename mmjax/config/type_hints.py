"""Types: which values the parameters of a callable take."""

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
    """The named parameters of a callable that a configuration may set."""
    hints = annotations(function)
    fields = getattr(function, "__dataclass_fields__", {})
    return {
        name: _parameter(p, hints.get(name, Any), fields.get(name))
        for name, p in inspect.signature(function).parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and not _hidden(function, name)
    }


def variable(function: Callable[..., Any], kind: Any) -> Any:
    """The annotation of *args or **kwargs, which kind is VAR_POSITIONAL or VAR_KEYWORD."""
    known = annotations(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is kind:
            return known.get(name, Any)
    return Any


def takes(function: Callable[..., Any], kind: Any) -> bool:
    """Whether a callable has a parameter of a kind such as `VAR_KEYWORD`."""
    return any(p.kind is kind for p in inspect.signature(function).parameters.values())


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable's parameters; those that cannot be resolved become Any."""
    target: Any = function
    if isinstance(function, type) and not _declares_fields(function):
        target = function.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(target)
    except Exception:  # An annotation may name what only a type checker imports.
        raw = getattr(target, "__annotations__", {})
        return {k: Any if isinstance(v, str) else v for k, v in raw.items()}


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a parameter of that annotation takes the value: yes, where the type is unknown.

    An int is taken for a float; a bool is not taken for an int. A configured call is judged by
    the class that it makes.
    """
    return any(_accepts(member, value) for member in members(annotation))


def takes_objects(annotation: Any) -> bool:
    """Whether a parameter takes functions, classes or what they make, and no strings.

    Numbers, strings and containers are typed as literals; where the type is unknown, nothing tells
    that an object is meant.
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
    """Whether an annotation is that of a list, a tuple, a dict or the like."""
    kind = typing.get_origin(annotation) or annotation
    return (
        isinstance(kind, type)
        and issubclass(kind, tuple | list | Sequence | Mapping)
        and (kind not in (str, bytes))
    )


def element(annotation: Any, key: Any) -> Any:
    """The annotation of what a container holds under `key`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if not isinstance(origin, type) or not arguments:
        return Any
    if issubclass(origin, Mapping):
        return arguments[1]
    if origin is tuple and Ellipsis not in arguments:
        return arguments[key] if isinstance(key, int) and key < len(arguments) else Any
    return arguments[0] if issubclass(origin, Sequence) else Any


def show_type(annotation: Any) -> str:
    """An annotation in the short form that tells a user what to type; "" if unknown."""
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
    """A union; where a float will do, the other kinds of number and arrays go without saying."""
    shown = list(dict.fromkeys(show_type(m) for m in members))
    if "float" in shown:
        shown = [s for s in shown if s in ("float", "str", "None", "Callable")]
    return "" if "" in shown else " | ".join(shown)


def holds_buildable(value: Any) -> bool:
    """Whether a value is a configured call or a container of some."""
    if isinstance(value, fdl.Buildable):
        return True
    values = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(map(holds_buildable, values))


def made(factory: Callable[[], Any]) -> Any:
    """A default that is made anew each time: as a call, where the factory has a name."""
    named = inspect.isfunction(factory) or isinstance(factory, type)
    if named and factory.__module__ != "builtins" and factory.__name__ != "<lambda>":
        return fdl.Config(factory)
    return factory()


def opened(value: Any) -> Any:
    """A default that is an object, as the call that would make it, so that its parts show."""
    if isinstance(value, fdl.Buildable | type) or not dataclasses.is_dataclass(value):
        return value
    return fdl.Config(type(value), **changed_fields(value))


def changed_fields(value: Any) -> dict[str, Any]:
    """What a data class or named tuple holds that is not the default."""
    known = parameters(type(value))
    now = {name: getattr(value, name) for name in known}
    return {k: v for k, v in now.items() if known[k].factory or v != known[k].default}


def _parameter(parameter: inspect.Parameter, annotation: Any, field: Any) -> Parameter:
    factory = getattr(field, "default_factory", None)
    if callable(factory):
        return Parameter(annotation, factory=factory)
    unset = parameter.default is parameter.empty
    return Parameter(annotation, fdl.NO_VALUE if unset else parameter.default)


def _hidden(function: Callable[..., Any], name: str) -> bool:
    """Flax gives each module a parent and a name: they are not the user's to set."""
    import flax.linen as nn

    is_module = isinstance(function, type) and issubclass(function, nn.Module)
    return is_module and name in ("parent", "name")


def _declares_fields(cls: type) -> bool:
    return hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
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
    """Every item, since beartype looks at one of them only."""
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
    """Whether a configured call makes what the annotation asks, as far as classes can tell."""
    made = _result(config)
    wanted = typing.get_origin(annotation) or annotation
    if wanted is typing.Literal:
        return False
    return made is None or not _is_plain_class(wanted) or issubclass(made, wanted)


def _is_plain_class(kind: Any) -> bool:
    """Whether a subclass test says all: not so for Any, protocols and jaxtyping's arrays."""
    if kind is Any or not isinstance(kind, type) or hasattr(kind, "array_type"):
        return False
    return not getattr(kind, "_is_protocol", False)


def _result(config: fdl.Buildable) -> type | None:
    """The class that a configured call makes, if it is known."""
    function: Any = fdl.get_callable(config)
    if not isinstance(config, fdl.Config):
        return None
    made = function if isinstance(function, type) else annotations(function).get("return")
    if typing.get_origin(made) is collections.abc.Callable:
        return typing.get_origin(made)
    return made if _is_plain_class(made) else None
