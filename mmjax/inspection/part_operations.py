"""Counts the floating-point operations of every part of a model."""

import collections
import functools
import re
from collections.abc import Callable
from typing import Any

import jax

from mmjax.inspection.flops import count_flops_by_scope
from mmjax.inspection.model_parts import (
    Part,
    list_model_parts,
    replace_arrays_by_shapes,
    wrap_model_parts,
)
from mmjax.model import Model, identity
from mmjax.types import Batch, Variables


def count_operations_by_part(
    model: Model, variables: Variables, batch: Batch
) -> collections.Counter[str]:
    """Counts operations per batch: {name of a part's parameters: number}, "" for the rest."""
    names = list(list_model_parts(model))
    # Scopes hold the part's number, which is found however JAX transforms their names.
    pattern = re.compile(r"mmjax_part_(\d+)")

    def scoped(name: str, part: Part, x: Any, call: Callable[[], Any]) -> Any:
        del part, x
        with jax.named_scope(f"mmjax_part_{names.index(name)}"):
            return call()

    def count(method: Callable[..., Any]) -> collections.Counter[str]:
        counts: collections.Counter[str] = collections.Counter()
        with wrap_model_parts(model, scoped) as watched_model:
            run = functools.partial(watched_model.apply, method=method)
            by_scope = count_flops_by_scope(run, variables, replace_arrays_by_shapes(batch))
        for scopes, number in by_scope.items():
            match = pattern.search(scopes)
            counts[names[int(match[1])] if match else ""] += number
        return counts

    counts = count(_predict)
    for name, number in count(_compute_objectives).items() if model.auxiliary else ():
        if name.startswith("auxiliary_"):
            counts[name] = number
    return counts


def _predict(model: Model, batch: Batch) -> Any:
    return model(*batch[:3], train=False)


def _compute_objectives(model: Model, batch: Batch) -> Any:
    """Computes the objectives, each from the same intermediate values."""
    _, backbones = model.represent_and_record(*batch[:3], train=False)
    seen = dict.fromkeys(model.auxiliary, backbones)
    return model.compute_objectives(seen, batch, train=False, gather=identity)
