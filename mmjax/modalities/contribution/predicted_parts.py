"""Information decomposition of what a model predicts from each of two modalities alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.modalities.contribution.information_parts import InformationParts, decompose_information
from mmjax.modalities.contribution.subset_metrics import join_records
from mmjax.model import Model

_MAX_CLASSES = 30  # a table of 30³ cells is solved in seconds


def count_joint(
    first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], target: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "x1 x2 y"]:
    """Counts how often values occur together, as a table of relative frequencies.

    Example:
      >>> count_joint(np.array([0, 1]), np.array([0, 0]), np.array([0, 1])).tolist()
      [[[0.5, 0.0]], [[0.0, 0.5]]]
    """
    values = (first, second, target)
    table = np.zeros([int(x.max()) + 1 for x in values])
    np.add.at(table, values, 1.0)
    return table / len(target)


def decompose_predictions(
    model: Model, by_subset: Sequence[Sequence[Any]], modalities: Sequence[str]
) -> dict[str, list[InformationParts]]:
    """Decomposes the information of the classes predicted from each modality alone, per seed.

    X_m is the class that the model predicts from modality m alone; Y is the label. The parts are
    those of the predictions: lower bounds of what is in the inputs, and synergy is that of the two
    predicted classes. Tasks of one class per example only, of two modalities.

    Args:
      model: the model.
      by_subset: statistics of every example, by seed and by subset.
      modalities: names of the modalities.

    Returns:
      {task: parts by seed}; {} unless there are two modalities.
    """
    if len(modalities) != 2:
        return {}
    parts: dict[str, list[InformationParts]] = {}
    for of_seed in by_subset:
        first, second = (join_records(of_seed[k]) for k in (1, 2))
        for task, head in model.heads.items():
            if not _is_classification(head, first[task]):
                continue
            target = first[task]["target"].select()
            if len(target):
                of_first, of_second = (x[task]["predicted"].select() for x in (first, second))
                joint = count_joint(of_first, of_second, target)
                parts.setdefault(task, []).append(decompose_information(joint))
    return parts


def _is_classification(head: Any, records: Mapping[str, Any]) -> bool:
    return {"target", "predicted"} <= set(records) and getattr(head, "classes", 99) <= _MAX_CLASSES
