"""The labels of tasks over a whole split, without its inputs."""

import types
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Num

from mmjax.data.dataset import Arrays, Source, select_modalities_and_tasks

_CHUNK_EXAMPLES = 1024  # examples of a source on disk that are read at once
_CACHE: dict[Any, dict[str, "TaskLabels"]] = {}


class TaskLabels(NamedTuple):
    """The labels of one task in a split.

    Attributes:
      targets: [n ...], arbitrary without a label.
      labeled: which examples have a label.
    """

    targets: Num[np.ndarray, "n ..."]
    labeled: Bool[np.ndarray, " n"]


def read_task_labels(
    source: Source, modalities: tuple[str, ...], tasks: tuple[str, ...]
) -> Mapping[str, TaskLabels]:
    """Reads the labels of a split; a source on disk is read only once.

    Args:
      source: the split.
      modalities: those in use; examples without any of them count as unlabeled.
      tasks: the tasks.

    Returns:
      {task: its labels}.
    """
    if not tasks:
        return types.MappingProxyType({})
    if isinstance(source, Arrays):
        whole = select_modalities_and_tasks(source.batch, modalities, tasks)
        return {t: TaskLabels(np.asarray(whole.targets[t]), whole.labeled[t]) for t in tasks}
    key = (id(source), modalities, tasks)
    if key not in _CACHE:
        chunks = []
        for start in range(0, len(source), _CHUNK_EXAMPLES):
            rows = np.arange(start, min(start + _CHUNK_EXAMPLES, len(source)))
            chunk = select_modalities_and_tasks(source.take(rows), modalities, tasks)
            chunks.append(chunk._replace(inputs={}))
        _CACHE[key] = {
            t: TaskLabels(
                np.concatenate([chunk.targets[t] for chunk in chunks]),
                np.concatenate([chunk.labeled[t] for chunk in chunks]),
            )
            for t in tasks
        }
        weakref.finalize(source, _CACHE.pop, key, None).atexit = False
    return _CACHE[key]
