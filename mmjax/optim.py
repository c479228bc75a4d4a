"""Optimizers that treat parameters differently by their paths, built from optax."""

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from mmjax.parameters import flatten_by_path, format_path
from mmjax.types import Params

__all__ = ["per_path", "scale_by_depth", "unfreeze_at"]

_LAYER = "{layer}"


def per_path(
    transformations: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Makes an optimizer that updates each parameter by the transformation of the first pattern.

    Args:
      transformations: {pattern: transformation}; a pattern is one of `fnmatch` over paths such as
        "encoders_text/layers/kernel". Every parameter must match one; end with "*" for the rest.

    Raises:
      ValueError: in `init`, if a parameter matches no pattern, or a pattern decides for none.

    Example:
      >>> optimizer = per_path({"encoders_*": optax.sgd(0.1), "*": optax.sgd(1.0)})
      >>> params = {"encoders_a": jnp.ones(1), "heads_b": jnp.ones(1)}
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> print(updates["encoders_a"], updates["heads_b"])
      [-0.1] [-1.]
    """
    if not transformations:
        raise ValueError("per_path has no transformations; give it at least {'*': optimizer}.")

    def label_params(params: Params) -> Any:
        labels = jax.tree.map_with_path(
            lambda path, _: _find_pattern(format_path(path), list(transformations)), params
        )
        if unused := sorted(set(transformations) - set(jax.tree.leaves(labels))):
            paths = ", ".join(sorted(flatten_by_path(params)))
            raise ValueError(
                f"The pattern {unused[0]!r} of per_path decides for no trainable parameter: they "
                f"are {paths}, and the first pattern that matches counts."
            )
        return labels

    return optax.multi_transform(transformations, label_params, mask_compatible_extra_args=True)


def scale_by_depth(
    decay: float, layers: Sequence[str], *, stacked: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Makes a transformation that scales updates by decay^(number of layers above).

    Put it last, as in `optax.chain(optax.adamw(1e-4), scale_by_depth(0.8, [...]))`: it then scales
    learning rate and weight decay alike. Parameters that match no pattern are not scaled.

    Source: Clark et al., "ELECTRA", ICLR 2020 (layer-wise learning rate decay).

    Args:
      decay: factor per layer.
      layers: patterns of the paths of one layer each, from the input to the output. A pattern with
        `{layer}` stands for one layer per number in the paths.
      stacked: those of `layers` whose parameters hold all layers of a stack on their first axis.

    Raises:
      ValueError: if `decay` is not positive, or, in `update`, if a pattern matches nothing.

    Example:
      >>> scaling = scale_by_depth(0.5, ["embed", "layers/*"], stacked=["layers/*"])
      >>> updates = {"embed": jnp.ones(1), "layers": {"w": jnp.ones((2, 1))}, "head": jnp.ones(1)}
      >>> scaled, _ = scaling.update(updates, scaling.init(updates))
      >>> print(scaled["embed"], scaled["layers"]["w"].ravel(), scaled["head"])
      [0.25] [0.5 1. ] [1.]
    """
    if not decay > 0:
        raise ValueError(f"decay is {decay}; it must be positive.")
    if other := sorted(set(stacked) - set(layers)):
        raise ValueError(f"stacked has {other[0]!r}, which is not one of the layers.")

    def scale_updates(updates: Params) -> Params:
        depths = _find_depths(updates, layers, stacked)
        top = max(int(depth.max()) for depth in depths.values())

        def scale(path: tuple[Any, ...], x: Array) -> Array:
            if format_path(path) not in depths:
                return x
            depth = depths[format_path(path)]
            # The top layer keeps its update; each layer below gets `decay` times that of the one
            # above.
            factor = jnp.asarray(decay, x.dtype) ** (top - depth)
            return x * factor.reshape(depth.shape + (1,) * (x.ndim - depth.ndim))

        return jax.tree.map_with_path(scale, updates)

    return optax.stateless(lambda updates, params: scale_updates(updates))


def unfreeze_at(
    step: int, transformation: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Makes a transformation that updates nothing before a step, for gradual unfreezing.

    Its state, and with it every schedule inside, starts at that step.

    Source: Howard and Ruder, "Universal language model fine-tuning", ACL 2018.

    Args:
      step: number of steps during which the parameters keep their values.
      transformation: what updates them afterwards.

    Example:
      >>> gradual = per_path({"encoders_*": unfreeze_at(500, optax.sgd(0.1)), "*": optax.sgd(0.1)})
      >>> params = {"encoders_a": jnp.ones(1), "heads_b": jnp.ones(1)}
      >>> updates, _ = gradual.update(params, gradual.init(params), params)
      >>> print(updates["encoders_a"], updates["heads_b"])
      [0.] [-0.1]
    """
    if step < 0:
        raise ValueError(f"step is {step}; it must be 0 or more.")
    return optax.conditionally_mask(transformation, lambda count: count >= step)


def _find_pattern(path: str, patterns: Sequence[str]) -> str:
    for pattern in patterns:
        if fnmatch.fnmatchcase(path, pattern):
            return pattern
    raise ValueError(
        f"The patterns of per_path, {', '.join(patterns)}, do not match the parameter {path}; add "
        'one, or "*" for all others.'
    )


def _find_depths(
    params: Params, layers: Sequence[str], stacked: Sequence[str]
) -> dict[str, Int[np.ndarray, "..."]]:
    """Returns {path: depth}, one per row of the stacked ones, counted from 0 at the input."""
    leaves = flatten_by_path(params)
    depths: dict[str, np.ndarray] = {}
    first = 0
    for pattern in layers:
        count = 1
        for path, match in _match_layer(pattern, leaves):
            if path in depths:  # the first pattern that matches a parameter decides
                continue
            number = int(match.group(1)) if match.re.groups else 0
            depths[path] = np.asarray(first + number)
            if pattern in stacked:
                depths[path] = first + np.arange(len(leaves[path]))
            count = max(count, int(depths[path].max()) - first + 1)
        first += count
    return depths


def _match_layer(pattern: str, paths: Collection[str]) -> list[tuple[str, re.Match[str]]]:
    """Returns the paths that a pattern matches, with the number for which {layer} stands.

    Raises:
      ValueError: there is none.
    """
    # fnmatch would escape the braces, so a character that paths do not have holds their place.
    expression = fnmatch.translate(pattern.replace(_LAYER, "\0"))
    matcher = re.compile(expression.replace("\0", "([0-9]{1,9})"))
    matches = []
    for path in paths:
        if match := matcher.fullmatch(path):
            matches.append((path, match))
    if not matches:
        raise ValueError(
            f"No trainable parameter matches {pattern!r} of scale_by_depth; they are "
            f"{', '.join(sorted(paths))}."
        )
    return matches
