"""Batches of one size of a whole split, and the variables of single seeds."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Source, select_modalities_and_tasks
from mmjax.data.sampling.batch_order import make_eval_indices
from mmjax.runs.examples import complete_batch
from mmjax.runs.trained import Trained
from mmjax.types import Batch, Variables


class PaddedBatch(NamedTuple):
    """A batch of full size, and the indices of its examples; what fills it up has no labels."""

    batch: Batch
    indices: Int[np.ndarray, " b"]


def iterate_padded_batches(trained: Trained, source: Source) -> Iterator[PaddedBatch]:
    """Yields the model's inputs and targets of a split, in batches of one size.

    Raises:
      ValueError: the split lacks a task, or an example does not fit the model.
    """
    size = min(trained.batch_size, max(len(source), 1))
    for chunk_indices, chunk_valid in make_eval_indices(len(source), size, 1):
        indices, valid = chunk_indices[0], chunk_valid[0]
        batch = complete_batch(trained.spec, source.take(indices), f"examples {indices[0]} on")
        missing = [task for task in trained.spec.tasks if task not in batch.targets]
        if missing:
            raise ValueError(f"the examples have no targets of task {missing[0]!r}.")
        batch = select_modalities_and_tasks(batch, trained.spec.modalities, trained.spec.tasks)
        labeled = {task: labels & valid for task, labels in batch.labeled.items()}
        yield PaddedBatch(batch._replace(labeled=labeled, weights={}), indices)


def get_member_variables(trained: Trained, index: int) -> Variables:
    """Returns the variables of one of the seeds."""
    variables = dict(trained.variables)
    return variables if len(trained.seeds) == 1 else jax.tree.map(lambda x: x[index], variables)
