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
            for scopes, number in count_flops_by_scope(
                run, variables, replace_arrays_by_shapes(batch)
            ).items():
                match = pattern.search(scopes)
                counts[names[int(match[1])] if match else ""] += number
        return counts

    def predict(model: Model, batch: Batch) -> Any:
        return model(*batch[:3], train=False)

    def objectives(model: Model, batch: Batch) -> Any:
        seen = dict.fromkeys(
            model.auxiliary, model.represent_and_record(*batch[:3], train=False)[1]
        )
        return model.compute_objectives(seen, batch, train=False, gather=identity)

    counts = count(predict)
    if model.auxiliary:
        for name, number in count(objectives).items():
            if name.startswith("auxiliary_"):
                counts[name] = number
    return counts
