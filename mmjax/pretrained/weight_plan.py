"""The plan of which array of a weight file fills which parameter, made from shapes and types."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from mmjax.pretrained.positions import resize_positions
from mmjax.pretrained.renaming import (
    Rename,
    Shape,
    Transform,
    match_name,
    transform_array,
    transform_shape,
)
from mmjax.pretrained.stored_trees import StoredArray

_MAX_LISTED = 10  # names per kind of problem
_FLOATS = ("float16", "bfloat16", "float32", "float64")

Resizing = Literal["1d", "2d"]


class Source(NamedTuple):
    """An array of a file, and the parameter that it fills, or of which it is one layer.

    Attributes:
      array: the array.
      path: path of the parameter.
      layer: index on the first axis of the parameter; None if the array fills all of it.
      transform: see `mmjax.pretrained.renaming.Rename`.
      resizing: how the array is resized if it is a table of positions of another length.
    """

    array: StoredArray
    path: str
    layer: int | None
    transform: Transform | None
    resizing: Resizing | None


def plan_sources(
    arrays: Sequence[StoredArray],
    leaves: Mapping[str, Any],
    *,
    collection: str,
    names: Sequence[Rename],
    prefix: str = "",
    allow: Sequence[str] = (),
    interpolate: Mapping[str, Resizing] | None = None,
) -> tuple[list[Source], list[str]]:
    """Plans which arrays fill the parameters, and says what does not fit.

    Args:
      arrays: those of the file.
      leaves: {path: parameter, or an object with its shape and type}.
      collection: the collection of Flax variables that the paths belong to.
      names: rules; without any, names are paths.
      prefix: only arrays whose names begin with it count; it is removed from them.
      allow: patterns of names and paths that may stay unused, or not fit.
      interpolate: {pattern of paths: resizing}.

    Returns:
      The sources that fit, and one text per kind of problem.
    """
    sources: dict[str, list[Source]] = {}
    unused: dict[str, str] = {}
    for array in arrays:
        if not array.name.startswith(prefix):
            continue
        name = array.name.removeprefix(prefix)
        target = match_name(names or [Rename("*", "*")], name)
        if target is None:
            unused[name] = name
        elif target.path is None or (target.collection or array.collection) != collection:
            continue
        elif target.path not in leaves:
            unused[name] = f"{name} (there is no {target.path})"
        else:
            resizing = _get_first_match(interpolate or {}, target.path)
            source = Source(array, target.path, target.layer, target.transform, resizing)
            sources.setdefault(target.path, []).append(source)
    wrong, fitting = {}, list[Source]()
    for path, of_path in sources.items():
        of_path.sort(key=lambda source: source.layer or 0)
        if problem := _find_problem(of_path, leaves[path]):
            wrong[path] = f"{path}: {problem}"
        else:
            fitting += _number_layers(of_path)
    missing = {path: path for path in leaves if path not in sources}
    problems = [
        _list_problems("parameters that no array fills", missing, allow),
        _list_problems("arrays that fill no parameter", unused, allow),
        _list_problems("arrays that do not fit", wrong, allow),
    ]
    return fitting, [problem for problem in problems if problem]


def fit_array(values: np.ndarray, source: Source, leaf: Any) -> np.ndarray:
    """Transforms an array to the shape and type of its parameter, or of a layer of it.

    Raises:
      ValueError: if it has values that are not finite numbers.
    """
    shape = tuple(leaf.shape) if source.layer is None else tuple(leaf.shape[1:])
    transformed = transform_shape(source.transform, source.array.shape, shape)
    values = transform_array(source.transform, values, transformed)
    if transformed != shape and source.resizing is not None:
        values = resize_positions(values.astype(np.float64), shape[-2], source.resizing)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        values = values.astype(leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(values).all():
        raise ValueError(
            f"the array {source.array.name!r} has values that are not finite in {leaf.dtype}: it "
            "is damaged, or its training diverged"
        )
    return values


def _find_problem(sources: Sequence[Source], leaf: Any) -> str | None:
    """Returns why arrays with the same path cannot fill its parameter; None if they can."""
    layers, shape = [source.layer for source in sources], tuple(leaf.shape)
    if layers[0] is not None:
        if layers != list(range(layers[0], layers[0] + len(layers))):
            return f"the file has the layers {layers}, which are not consecutive"
        if not shape or shape[0] != len(layers):
            return f"the file has {len(layers)} layers for the parameter of shape {shape}"
        shape = shape[1:]
    elif len(sources) > 1 and any(source.transform != "sum" for source in sources):
        return f"{' and '.join(source.array.name for source in sources[:3])} have the same path"
    for source in sources:
        array = source.array
        is_float = array.dtype in _FLOATS and jnp.issubdtype(leaf.dtype, jnp.floating)
        if not is_float and array.dtype != str(leaf.dtype):
            return f"{array.name} is of type {array.dtype}, the parameter of {leaf.dtype}"
        transformed = transform_shape(source.transform, array.shape, shape)
        if transformed != shape and not _can_resize(source, transformed, shape):
            stored = f", as {array.shape} in the file" if transformed != array.shape else ""
            return f"{array.name} is {transformed}{stored}, the parameter {shape}"
    return None


def _can_resize(source: Source, old: Shape, new: Shape) -> bool:
    """Returns whether an array is a table of positions [n, d] or [1, n, d] to be resized."""
    same = len(old) == len(new) and len(old) in (2, 3) and old[-1] == new[-1]
    return source.resizing is not None and same and old[:-2] == new[:-2]


def _number_layers(sources: Sequence[Source]) -> list[Source]:
    """Counts stacked layers from 0."""
    first = sources[0].layer or 0
    return [s if s.layer is None else s._replace(layer=s.layer - first) for s in sources]


def _get_first_match(values: Mapping[str, Resizing], path: str) -> Resizing | None:
    return next((v for p, v in values.items() if fnmatch.fnmatchcase(path, p)), None)


def _list_problems(what: str, problems: Mapping[str, str], allow: Sequence[str]) -> str:
    """Formats {name: problem} of the names that no pattern allows; "" if there are none."""
    texts = [
        text
        for name, text in problems.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)
    ]
    if not texts:
        return ""
    more = f", and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return f"{what}: {', '.join(texts[:_MAX_LISTED])}{more}"
