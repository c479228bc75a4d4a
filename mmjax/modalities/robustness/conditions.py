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
      modality: the corrupted one, the name of a group, or "all".
      corruption: a name of `CORRUPTIONS_OF_KIND`, "missing", or "main corruption", the first one of
        each modality.
      corruptions: {modality: corruption}.
      missing: the modalities that are removed at a rate equal to the level.
      together: whether all of them are removed from the same examples, as those of one sensor are;
        otherwise each is drawn by itself.
    """

    modality: str
    corruption: str
    corruptions: Mapping[str, Corruption]
    missing: tuple[str, ...] = ()
    together: bool = False


def list_conditions(
    spec: Spec,
    train: Source,
    *,
    modalities: Collection[str] | None = None,
    corruptions: Collection[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    groups: Mapping[str, Collection[str]] | None = None,
) -> list[Condition]:
    """Lists the conditions of every modality, of groups, and of all modalities together.

    Args:
      spec: the modalities of the model.
      train: the training split, which gives the units.
      modalities: those to corrupt; None: all.
      corruptions: names of corruptions; None: all that the kind of each modality has.
      kinds: {modality: kind of input}, instead of the inferred ones.
      groups: {name: modalities that come from one sensor}, which are corrupted at the same level
        by each corruption that all of them have, otherwise by the first one of each, and are
        missing together.

    Raises:
      ValueError: a name is unknown, a group is not one, or nothing is left.

    Example:
      >>> from mmjax.data import interactions
      >>> from mmjax.data.spec import make_spec
      >>> data = interactions(train=64)
      >>> conditions = list_conditions(make_spec(data), data.splits["train"], modalities=["a", "b"],
      ...                              corruptions=["noise", "missing"])
      >>> [(c.modality, c.corruption) for c in conditions][-2:]
      [('all', 'main corruption'), ('all', 'missing')]
    """
    kinds, groups = kinds or {}, groups or {}
    _check_names(spec, modalities or (), corruptions or (), kinds, groups)
    chosen = [m for m in spec.modalities if modalities is None or m in modalities]
    with_missing = corruptions is None or MISSING in corruptions
    of_modality = {}
    for m in dict.fromkeys((*chosen, *itertools.chain(*groups.values()))):
        of_modality[m] = _make_modality_corruptions(spec, train, m, kinds.get(m), corruptions)
    conditions = []
    for m in chosen:
        conditions += [Condition(m, name, {m: x}) for name, x in of_modality[m].items()]
        # Without its only modality an example would be empty.
        if with_missing and len(spec.modalities) > 1:
            conditions.append(Condition(m, MISSING, {}, (m,)))
    for name, members in groups.items():
        conditions += _list_group_conditions(name, {m: of_modality[m] for m in members})
        if with_missing and len(members) < len(spec.modalities):
            conditions.append(Condition(name, MISSING, {}, tuple(members), together=True))
    conditions += _list_joint_conditions({m: of_modality[m] for m in chosen}, with_missing)
    if not conditions:
        raise ValueError(
            f"none of the corruptions {sorted(corruptions or ())} applies to {', '.join(chosen)}."
        )
    return conditions


def _make_modality_corruptions(
    spec: Spec, train: Source, modality: str, kind: str | None, names: Collection[str] | None
) -> dict[str, Corruption]:
    """Makes the corruptions of one modality; none of one that has parts."""
    declared = spec.modalities[modality]
    kind = kind or infer_corruption_kind(declared, spec.preparations[modality].dtype)
    if kind == "parts":
        return {}
    return make_corruptions(kind, measure_input(train, modality, declared), names)


def _check_names(
    spec: Spec,
    modalities: Collection[str],
    corruptions: Collection[str],
    kinds: Mapping[str, str],
    groups: Mapping[str, Collection[str]],
) -> None:
    """Refuses unknown names, groups of fewer than two modalities, and ambiguous groups."""
    for name in (*modalities, *kinds, *itertools.chain(*groups.values())):
        if name not in spec.modalities:
            raise ValueError(f"the model has no modality {name!r}, only {list(spec.modalities)}.")
    for kind in kinds.values():
        check_kind(kind)
    check_corruption_names(corruptions)
    for name, members in groups.items():
        if name == ALL or name in spec.modalities:
            what = "stands for all modalities" if name == ALL else "is a modality"
            raise ValueError(f"the group {name!r} needs another name: {name!r} {what}.")
        if len(set(members)) < 2 or len(set(members)) < len(members):
            raise ValueError(
                f"the group {name!r} has the modalities {list(members)}; name two or more, each "
                "once."
            )


def _list_group_conditions(
    name: str, members: Mapping[str, Mapping[str, Corruption]]
) -> list[Condition]:
    """Lists the corruptions that all members have; if there are none, the first one of each."""
    first, *others = members.values()
    shared = [corruption for corruption in first if all(corruption in x for x in others)]
    if not shared:
        main = _choose_main(members)
        return [Condition(name, MAIN, main)] if main else []
    return [Condition(name, c, {m: x[c] for m, x in members.items()}) for c in shared]


def _list_joint_conditions(
    members: Mapping[str, Mapping[str, Corruption]], with_missing: bool
) -> list[Condition]:
    """Lists the conditions of all modalities together, if there are two or more."""
    conditions = []
    main = _choose_main(members)
    if len(main) > 1:
        conditions.append(Condition(ALL, MAIN, main))
    if with_missing and len(members) > 1:
        conditions.append(Condition(ALL, MISSING, {}, tuple(members)))
    return conditions


def _choose_main(members: Mapping[str, Mapping[str, Corruption]]) -> dict[str, Corruption]:
    """Returns the first corruption of each modality that has any."""
    return {m: next(iter(x.values())) for m, x in members.items() if x}


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
