"""Checks whether the parameters of a callable accept a value, before any call is made."""

import collections.abc
import types
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl

from mmjax.config.type_hints import (
    iterate_elements,
    list_union_members,
    resolve_annotations,
)


def accepts_value(annotation: Any, value: Any) -> bool:
    """Checks whether a parameter of that annotation accepts the value; unknown types accept any.

    An int is accepted as a float; a bool is not accepted as an int. A configured call is judged by
    the class that it makes.

    Example:
      >>> accepts_value(float | None, 3), accepts_value(int, True)
      (True, False)
    """
    return any(_accepts_member(member, value) for member in list_union_members(annotation))


def accepts_objects(annotation: Any) -> bool:
    """Checks whether a parameter accepts functions, classes or their instances, but no strings.

    Numbers, strings and containers are typed as literals; if the type is unknown, a value is not
    taken for the name of an object.
    """
    return not accepts_value(annotation, "") and any(
        map(_is_object_type, list_union_members(annotation))
    )


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


def contains_buildable(value: Any) -> bool:
    """Checks whether a value is a configured call or a container that holds one."""
    if isinstance(value, fdl.Buildable):
        return True
    values = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, Mapping | list | tuple) and any(map(contains_buildable, values))


def _accepts_member(annotation: Any, value: Any) -> bool:
    if isinstance(value, fdl.Buildable):
        return _accepts_result(annotation, value)
    if contains_buildable(value):
        # beartype cannot see through calls inside of containers, so each item is checked by itself.
        origin = typing.get_origin(annotation) or annotation
        return not _is_plain_class(origin) or (
            isinstance(value, origin) and _accepts_items(annotation, value)
        )
    # In Python a bool is an int; as a number of epochs it is a mistake.
    if isinstance(value, bool) and annotation in (int, float):
        return False
    return _is_bearable(annotation, value) and _accepts_items(annotation, value)


def _accepts_items(annotation: Any, value: Any) -> bool:
    """Checks every item, since beartype checks only one of them."""
    if not isinstance(value, Mapping | list | tuple):
        return True
    return all(accepts_value(inner, x) for _, inner, x in iterate_elements(annotation, value))


def _is_bearable(annotation: Any, value: Any) -> bool:
    from beartype import BeartypeConf
    from beartype.door import is_bearable

    # The numeric tower of PEP 484 accepts an int as a float.
    try:
        return is_bearable(value, annotation, conf=BeartypeConf(is_pep484_tower=True))
    except Exception:  # An annotation that beartype does not know forbids nothing.
        return True


def _accepts_result(annotation: Any, config: fdl.Buildable) -> bool:
    """Checks whether an annotation accepts the result of a call, if classes can tell."""
    result = _find_result_class(config)
    wanted = typing.get_origin(annotation) or annotation
    if wanted is typing.Literal:
        return False
    if isinstance(config, fdl.Partial):  # which makes a function
        return wanted is collections.abc.Callable or not _is_plain_class(wanted)
    return result is None or not _is_plain_class(wanted) or issubclass(result, wanted)


def _is_plain_class(kind: Any) -> bool:
    """Checks whether a subclass test suffices: not for Any, protocols and jaxtyping's arrays."""
    if kind is Any or not isinstance(kind, type) or hasattr(kind, "array_type"):
        return False
    return not getattr(kind, "_is_protocol", False)


def _find_result_class(config: fdl.Buildable) -> type | None:
    """Returns the class that a configured call makes, if it is known."""
    function: Any = fdl.get_callable(config)
    # A partial call makes a function, whose type no annotation restricts further.
    if not isinstance(config, fdl.Config):
        return None
    # A class makes its instances; a function makes what its return annotation says.
    result = function if isinstance(function, type) else resolve_annotations(function).get("return")
    if typing.get_origin(result) is collections.abc.Callable:
        return typing.get_origin(result)
    return result if _is_plain_class(result) else None
