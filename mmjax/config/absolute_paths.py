"""Makes the file paths in a configuration absolute, so that it means the same everywhere."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import fiddle as fdl
from fiddle import daglish

from mmjax.config import type_hints

_PATH_CALLS = (Path, type(Path()), os.path.join, os.path.abspath, os.path.dirname)


def make_paths_absolute(config: Any) -> Any:
    """Returns a copy of a configuration whose relative paths are absolute.

    A value is a path if it is a `Path`, or a string at a parameter whose annotation names
    `os.PathLike`, as those of the functions in `mmjax.data` do. Calls that only put paths together
    are evaluated. "~/..." and addresses such as "gs://..." are left as they are.
    """

    def copied(value: Any, state: daglish.State) -> Any:
        if isinstance(value, Path):
            return _make_absolute(value)
        if not state.is_traversable(value):
            return value
        new = state.map_children(value)
        if isinstance(new, fdl.Config) and fdl.get_callable(new) in _PATH_CALLS:
            # Only if all arguments are plain: other calls are not made before they are checked.
            arguments = new.__arguments__.values()
            return _make_absolute(fdl.build(new)) if all(map(_is_path, arguments)) else new
        if isinstance(new, fdl.Buildable):
            for name, annotation in _find_path_parameters(fdl.get_callable(new)).items():
                if name in new.__arguments__:
                    setattr(new, name, _resolve_paths(new.__arguments__[name], annotation))
        return new

    return daglish.MemoizedTraversal.run(copied, config)


@cache
def _find_path_parameters(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns {parameter: annotation} of the parameters that may hold paths."""
    annotations = type_hints.resolve_annotations(function)
    return {name: a for name, a in annotations.items() if name != "return" and _names_paths(a)}


def _names_paths(annotation: Any) -> bool:
    """Checks whether an annotation names `os.PathLike` at any depth."""
    return _is_path_type(annotation) or any(map(_names_paths, get_args(annotation)))


def _is_path_type(annotation: Any) -> bool:
    kind = get_origin(annotation) or annotation
    return isinstance(kind, type) and issubclass(kind, os.PathLike)


def _resolve_paths(value: Any, annotation: Any) -> Any:
    """Makes the paths in a value absolute, if the annotation contains a path type."""
    union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if union else (annotation,)
    if isinstance(value, str):
        return _make_absolute(value) if any(map(_is_path_type, members)) else value
    kind = type(value)
    for member in members if kind in (dict, list, tuple) else ():
        resolved = {}
        for key, inner, element in type_hints.iterate_elements(member, value):
            resolved[key] = _resolve_paths(element, inner)
        value = resolved if kind is dict else kind(resolved.values())
    return value


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path)


def _make_absolute(path: Any) -> Any:
    text = os.fspath(path)
    is_relative = text and not text.startswith("~") and "://" not in text
    return type(path)(os.path.abspath(text)) if is_relative else path
