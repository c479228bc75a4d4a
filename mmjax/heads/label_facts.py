"""What heads learn from the labels of the training split before training.

A head with the methods `needs_labels` and `learn_from_labels` gets all labeled training targets of
its task when an `Experiment` is made. The result is a pure function of the data, so it is not
stored in the configuration: the same experiment always has the same heads.
"""

import dataclasses
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Num, Shaped

from mmjax.data.dataset import Arrays, Dataset, Source
from mmjax.types import Batch

_CHUNK_EXAMPLES = 1024  # examples of a source on disk that are read at once
_CACHE: dict[tuple[int, str], np.ndarray] = {}


class Standardization(NamedTuple):
    """The mean and standard deviation with which a head standardizes its targets."""

    mean: Any
    scale: Any

    @classmethod
    def of(cls, mean: Any, scale: Any) -> "Standardization":
        """Makes it from a head's attributes; None becomes a mean of 0 or a scale of 1."""
        return cls(0.0 if mean is None else mean, 1.0 if scale is None else scale)

    @staticmethod
    def fill_in(mean: Any, scale: Any, targets: Num[np.ndarray, "n *k"]) -> dict[str, Any]:
        """Computes those that are None, in float64, per column; the scale of a constant is 1.

        Example:
          >>> Standardization.fill_in(None, None, np.array([1.0, 3.0]))
          {'mean': 2.0, 'scale': 1.0}
        """
        values = targets.astype(np.float64)
        values = values[np.isfinite(values).reshape(len(values), -1).all(axis=1)]
        if not len(values):
            values = np.zeros((1, *targets.shape[1:]))
        # A constant target has deviation 0 and stays in its unit.
        deviation = values.std(axis=0)
        facts = {"mean": values.mean(axis=0), "scale": np.where(deviation > 0, deviation, 1.0)}
        facts = {n: tuple(x.tolist()) if x.ndim else float(x) for n, x in facts.items()}
        given = {"mean": mean, "scale": scale}
        return {name: value for name, value in facts.items() if given[name] is None}


def check_scale(head: str, scale: Any) -> None:
    """Raises ValueError if a scale is given that is not positive."""
    # One by one, since a hyperparameter that is traced can be compared, but is not an array.
    scales = scale if isinstance(scale, tuple | list | np.ndarray) else (scale,)
    if scale is not None and not all(s > 0 for s in scales):
        raise ValueError(f"{head}.scale is {scale}; it must be positive.")


def read_training_targets(source: Source, task: str) -> Shaped[np.ndarray, "n ..."]:
    """Reads the targets of a source's labeled examples; a source on disk is read only once."""
    if isinstance(source, Arrays):
        return _select_labeled(source.batch, task)
    # An id is unique only while its object lives, so the entry goes with the source.
    key = (id(source), task)
    if key not in _CACHE:
        parts = []
        for start in range(0, len(source), _CHUNK_EXAMPLES):
            stop = min(start + _CHUNK_EXAMPLES, len(source))
            parts.append(_select_labeled(source.take(np.arange(start, stop)), task))
        _CACHE[key] = np.concatenate(parts)
        weakref.finalize(source, _CACHE.pop, key, None).atexit = False
    return _CACHE[key]


def _select_labeled(batch: Batch, task: str) -> Shaped[np.ndarray, "n ..."]:
    """Returns the targets of the labeled examples; none if a later check will refuse the batch."""
    y, labeled = (np.asarray(part.get(task)) for part in (batch.targets, batch.labeled))
    if labeled.dtype != bool or y.shape[:1] != labeled.shape or y.dtype.kind not in "iuf":
        return np.zeros(0, np.float32)
    return y[labeled]


def learn_from_training_labels(heads: Mapping[str, nn.Module], data: Dataset) -> dict[str, Any]:
    """Returns the heads that learned something from the training labels, by task.

    Args:
      heads: {task: head}.
      data: the data set; tasks that it does not have are left out.

    Example:
      >>> from mmjax.data.dataset import Task
      >>> from mmjax.heads import Regression
      >>> yes, y = np.array([True, True]), np.array([1.0, 3.0])
      >>> train = Arrays(Batch({}, {"x": yes}, {}, {"size": y}, {"size": yes}))
      >>> data = Dataset("toy", {}, {"size": Task("regression")}, {"train": train})
      >>> learn_from_training_labels({"size": Regression()}, data)["size"].mean
      2.0
    """
    source = data.splits.get("train")
    learned: dict[str, Any] = {}
    for task, head in heads.items():
        if source is None or not getattr(head, "needs_labels", bool)():
            continue
        if task not in data.tasks:
            continue  # the check of the experiment refuses it
        learned[task] = head.learn_from_labels(read_training_targets(source, task))
    return learned


def apply_label_facts(model: Any, data: Dataset) -> Any:
    """Returns the model with heads fitted to the training labels; unchanged if none needs it.

    An auxiliary objective that has a `head` for a `task` gets it fitted, too.
    """
    learned = learn_from_training_labels(model.heads, data)
    model = dataclasses.replace(model, heads={**model.heads, **learned}) if learned else model
    auxiliary = {}
    for name, objective in model.auxiliary.items():
        task = getattr(objective, "task", None)
        heads = {task: objective.head} if task and hasattr(objective, "head") else {}
        for head in learn_from_training_labels(heads, data).values():
            auxiliary[name] = objective.clone(head=head)
    return model.clone(auxiliary={**model.auxiliary, **auxiliary}) if auxiliary else model
