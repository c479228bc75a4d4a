"""Trained and frozen parts of a model's variables.

Each is a nested dictionary without the leaves of the other, so that gradients, states of the
optimizer and the balancer, and copies per seed exist for the trained part only.
"""

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.config.public_names import did_you_mean
from mmjax.inspection.model_parts import make_key_shape
from mmjax.parameters import overlay_tree
from mmjax.pretrained.lora import (
    LoRA,
    add_lora,
    find_kernels,
    is_lora_factor,
    is_lora_scale,
    is_updated_kernel,
    merge_lora,
)
from mmjax.types import Variables

Keys = tuple[str, ...]


def split_variables(
    variables: Variables, trainable: Sequence[str] | None
) -> tuple[Variables, Variables]:
    """Splits variables into those that train and those that are frozen.

    A variable that is not a parameter, such as a batch statistic, is frozen if all parameters of
    its module are, or of the innermost module around it that has parameters.

    Args:
      variables: {"params": parameters, and other collections}.
      trainable: patterns of paths of the parameters that train; None is all. Factors of low-rank
        updates always train, and their kernels and scales never do.

    Example:
      >>> variables = {"params": {"a": {"w": 1}, "b": {"w": 2}}, "batch_stats": {"a": {"mean": 3}}}
      >>> split_variables(variables, ["b/*"])
      ({'params': {'b': {'w': 2}}}, {'params': {'a': {'w': 1}}, 'batch_stats': {'a': {'mean': 3}}})
    """
    params = flatten_dict(variables["params"])
    trained = {keys for keys in params if _is_trained(keys, params, trainable)}
    parts: tuple[dict[Keys, Any], dict[Keys, Any]] = {}, {}
    for collection, tree in variables.items():
        for keys, leaf in flatten_dict(tree).items():
            own = collection == "params"
            trains = keys in trained if own else _has_trained_owner(keys, params, trained)
            parts[not trains][collection, *keys] = leaf
    first, second = map(unflatten_dict, parts)
    # Callers read "params" of the trained part even if no parameter trains.
    return {"params": {}, **first}, second


def trace_trained_params(
    shapes: Variables, trainable: Sequence[str] | None, lora: Mapping[str, LoRA]
) -> Any:
    """Returns the shapes of the parameters that train, factors of low-rank updates included.

    Args:
      shapes: those of the model's variables.
      trainable: see `split_variables`.
      lora: {pattern of the paths of kernels: low-rank update}.
    """
    params = shapes["params"]
    if lora:
        # Only shapes are needed, so A and B are traced and not drawn.
        params = jax.eval_shape(
            lambda params, key: add_lora(params, lora, key), params, make_key_shape()
        )
    return split_variables(shapes | {"params": params}, trainable)[0]["params"]


def _is_trained(keys: Keys, params: Mapping[Keys, Any], trainable: Sequence[str] | None) -> bool:
    # Of W + scale A B, only A and B train: training W as well would make them redundant.
    if is_lora_scale(keys) or is_updated_kernel(keys, params):
        return False
    if is_lora_factor(keys):
        return True
    path = "/".join(keys)
    return trainable is None or any(fnmatch.fnmatchcase(path, p) for p in trainable)


def _has_trained_owner(keys: Keys, params: Iterable[Keys], trained: Collection[Keys]) -> bool:
    """Returns whether the module of a variable has parameters that train."""
    # From the variable's own module outward; depth 0 is the whole model.
    for depth in reversed(range(len(keys))):
        inside = {other for other in params if other[:depth] == keys[:depth]}
        if inside:
            return not inside.isdisjoint(trained)
    return True


def complete_variables(trained: Variables, frozen: Variables | None) -> Variables:
    """Joins what `split_variables` returns, and merges low-rank updates, for `Model.apply`.

    Args:
      trained: the trained part.
      frozen: the frozen part; None if everything trains.
    """
    if frozen is None:
        return trained
    whole: Variables = overlay_tree(trained, frozen)
    # Merged on every application, so that gradients with respect to A and B pass through it.
    return whole | {"params": merge_lora(whole["params"])} if "params" in whole else whole


def complete_replicas(trained: Variables, frozen: Variables | None, replicas: int) -> Variables:
    """Joins a trained part with a leading axis of replicas and a frozen part without it.

    What is frozen is not copied: it becomes a NumPy view.
    """
    if frozen is None:
        return trained

    def repeat(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.broadcast_to(x, (replicas, *x.shape))

    return complete_variables(trained, jax.tree.map(repeat, jax.device_get(frozen)))


def select_same_keys(tree: Any, like: Any) -> Any:
    """Returns the part of a nested dictionary whose keys another one has.

    Example:
      >>> select_same_keys({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 0}})
      {'a': {'y': 2}}
    """
    if not isinstance(like, Mapping):
        return tree
    return {key: select_same_keys(tree[key], value) for key, value in like.items()}


def check_trainable(trainable: Sequence[str], params: Any) -> None:
    """Refuses patterns that match no parameter.

    Args:
      trainable: the patterns.
      params: the model's parameters, or their shapes.

    Raises:
      ValueError: naming the pattern and the nearest paths.
    """
    if not trainable:
        raise ValueError("trainable is empty, so nothing would train; name some parameters.")
    paths = list(map("/".join, flatten_dict(params)))
    for pattern in trainable:
        _check_pattern("trainable", pattern, paths)


def check_lora(lora: Mapping[str, LoRA], params: Any) -> None:
    """Refuses patterns of low-rank updates that match no kernel, and ranks that are too large.

    Raises:
      ValueError: naming the pattern and what would fit.
    """
    flat = flatten_dict(params)
    for pattern in lora:
        _check_pattern("lora", pattern, list(map("/".join, flat)))
    # Raises for parameters that are not kernels and for ranks that are too large.
    find_kernels(flat, lora)


def _check_pattern(field: str, pattern: str, paths: Sequence[str]) -> None:
    """Refuses a pattern of a field of the experiment that matches none of the paths.

    Raises:
      ValueError: naming the pattern and the nearest paths.
    """
    if not fnmatch.filter(paths, pattern):
        near = did_you_mean(pattern, paths)
        parts = sorted({f"{path.split('/')[0]}/*" for path in paths})
        raise ValueError(
            f"{field} has the pattern {pattern!r}, which matches no parameter.{near} The model's "
            f"parts are {', '.join(parts)}."
        )
