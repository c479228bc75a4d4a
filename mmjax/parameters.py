"""Parts of a tree of parameters: those that tasks share, those whose paths match a pattern."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from mmjax.types import Params


def partition_params(params: PyTree, shared: PyTree[bool]) -> tuple[PyTree, PyTree]:
    """Splits parameters into shared ones and those of one task; None fills the gaps of each tree.

    Args:
      params: the parameters.
      shared: marks the shared ones, as `mark_shared_parameters` returns it.
    """
    return (
        jax.tree.map(lambda p, s: p if s else None, params, shared),
        jax.tree.map(lambda p, s: None if s else p, params, shared),
    )


def merge_params(shared: Params, own: Params) -> Params:
    """Joins the two trees that `partition_params` returns."""
    return jax.tree.map(lambda s, o: o if s is None else s, shared, own, is_leaf=_is_none)


def select_matching_params(params: PyTree, patterns: Sequence[str]) -> PyTree:
    """Returns the parameters whose paths match one of the patterns, with None for the others.

    A path is written with slashes, as in "encoders_image/conv_0/kernel"; a pattern may contain *.

    Raises:
      ValueError: if a pattern matches nothing.
    """
    paths = flatten_by_path(params)
    chosen = set()
    for pattern in patterns:
        matching = fnmatch.filter(paths, pattern)
        if not matching:
            raise ValueError(
                f"No shared parameter matches {pattern!r}; they are {', '.join(sorted(paths))}."
            )
        chosen.update(matching)
    return jax.tree.map_with_path(
        lambda path, leaf: leaf if format_path(path) in chosen else None, params
    )


def mark_shared_parameters(model: Any, params: PyTree) -> PyTree[bool]:
    """Marks the parameters that tasks share: those of `model.shared`, or all but the tasks' own.

    An array that stacks one row per task is not shared: each row gets its own task's gradient only.

    Args:
      model: a `mmjax.model.Model`.
      params: its parameters, or their shapes.
    """
    if model.shared is None:
        return jax.tree.map_with_path(lambda path, _: not _is_task_specific(path), params)
    chosen = select_matching_params(params, model.shared)
    return jax.tree.map(lambda c: c is not None, chosen, is_leaf=_is_none)


def _is_task_specific(path: tuple[Any, ...]) -> bool:
    """Returns whether a parameter belongs to one task: a head's, or a sharing's named own_."""
    part, *names = (p.key for p in path)
    if part.startswith(("sharing", "branch_sharing_")):
        return any(name.startswith("own_") for name in names)
    return bool(part.startswith(("heads_", "branch_heads_", "own_", "auxiliary_")))


def overlay_tree(tree: Any, other: Any) -> Any:
    """Returns nested dictionaries with the leaves of both; where both have one, that of `other`.

    Example:
      >>> overlay_tree({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": {"z": 4}})
      {'a': {'x': 1, 'y': 3}, 'b': {'z': 4}}
    """
    if not isinstance(tree, Mapping) or not isinstance(other, Mapping):
        return other
    both = {key: overlay_tree(tree[key], other[key]) for key in tree.keys() & other.keys()}
    return dict(sorted({**tree, **other, **both}.items()))


def format_path(path: tuple[Any, ...]) -> str:
    """Formats a path in a tree with slashes, as in "encoders_image/conv_0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten_by_path(tree: Any) -> dict[str, Any]:
    """Returns {path with slashes: leaf} of a tree.

    Example:
      >>> flatten_by_path({"a": {"x": 1, "y": 2}})
      {'a/x': 1, 'a/y': 2}
    """
    return {format_path(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _is_none(x: Any) -> bool:
    return x is None
