"""Conditions of a robustness suite: which modalities are corrupted together, and how."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from mmjax.data.dataset import Source
from mmjax.data.spec import Spec
from mmjax.modalities.robustness.corruption import Corruption
from mmjax.modalities.robustness.corruption_table import (
    MISSING,
    check_corruption_names,
    check_kind,
    infer_corruption_kind,
    make_corruptions,
)
from mmjax.modalities.robustness.input_statistics import measure_input

ALL = "all"
MAIN = "main corruption"


class Condition(NamedTuple):
    """One curve of the suite.

    Attributes:
      modality: the corrupted one, or "all".
      corruption: a name of `CORRUPTIONS_OF_KIND`, "missing", or "main corruption", the first one of
        each modality.
      corruptions: {modality: corruption}.
      missing: the modalities that are removed at a rate equal to the level.
    """

    modality: str
    corruption: str
    corruptions: Mapping[str, Corruption]
    missing: tuple[str, ...] = ()


def list_conditions(
    spec: Spec,
    train: Source,
    *,
    modalities: Collection[str] | None = None,
    corruptions: Collection[str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> list[Condition]:
    """Lists the conditions of every modality, and those of all of them together.

    Args:
      spec: the modalities of the model.
      train: the training split, which gives the units.
      modalities: those to corrupt; None: all.
      corruptions: names of corruptions; None: all that the kind of each modality has.
      kinds: {modality: kind of input}, instead of the inferred ones.

    Raises:
      ValueError: a name is unknown, or nothing is left.

    Example:
      >>> from mmjax.data import interactions
      >>> from mmjax.data.spec import make_spec
      >>> data = interactions(train=64)
      >>> conditions = list_conditions(make_spec(data), data.splits["train"], modalities=["a", "b"],
      ...                              corruptions=["noise", "missing"])
      >>> [(c.modality, c.corruption) for c in conditions][-2:]
      [('all', 'main corruption'), ('all', 'missing')]
    """
    kinds = kinds or {}
    for name in (*(modalities or ()), *kinds):
        if name not in spec.modalities:
            raise ValueError(f"the model has no modality {name!r}, only {list(spec.modalities)}.")
    for kind in kinds.values():
        check_kind(kind)
    check_corruption_names(corruptions or ())
    chosen = [m for m in spec.modalities if modalities is None or m in modalities]
    with_missing = corruptions is None or MISSING in corruptions
    conditions, main = [], {}
    for m in chosen:
        modality, dtype = spec.modalities[m], spec.preparations[m].dtype
        kind = kinds.get(m) or infer_corruption_kind(modality, dtype)
        made = {}
        if kind != "parts":
            made = make_corruptions(kind, measure_input(train, m, modality), corruptions)
        conditions += [Condition(m, name, {m: change}) for name, change in made.items()]
        if made:
            main[m] = next(iter(made.values()))
        # Without its only modality an example would be empty.
        if with_missing and len(spec.modalities) > 1:
            conditions.append(Condition(m, MISSING, {}, (m,)))
    if len(main) > 1:
        conditions.append(Condition(ALL, MAIN, main))
    if with_missing and len(chosen) > 1:
        conditions.append(Condition(ALL, MISSING, {}, tuple(chosen)))
    if not conditions:
        raise ValueError(
            f"none of the corruptions {sorted(corruptions or ())} applies to {', '.join(chosen)}."
        )
    return conditions


def check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    """Returns the levels as a tuple.

    Raises:
      ValueError: they do not rise from 0 to at most 1.
    """
    levels = tuple(map(float, levels))
    rises = all(a < b for a, b in itertools.pairwise(levels))
    if len(levels) < 2 or levels[0] != 0 or levels[-1] > 1 or not rises:
        raise ValueError(f"levels are {list(levels)}; they must rise from 0 to at most 1.")
    return levels
