"""Batches of one size of a whole split, with the numbers of their examples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Source
from mmjax.runs.examples import iterate_labeled_examples, pad_batch
from mmjax.runs.trained import Trained
from mmjax.types import Batch


class PaddedBatch(NamedTuple):
    """A batch of full size, and the indices of its examples; what fills it up has no labels."""

    batch: Batch
    indices: Int[np.ndarray, " b"]


def iterate_padded_batches(trained: Trained, source: Source) -> Iterator[PaddedBatch]:
    """Yields the model's inputs and targets of a split, in batches of one size.

    Raises:
      ValueError: the split lacks a task, or an example does not fit the model.
    """
    size, start = min(trained.batch_size, max(len(source), 1)), 0
    for batch in iterate_labeled_examples(trained.spec, source, size):
        valid, padded = np.arange(size) < batch.size, pad_batch(batch, size)
        labeled = {task: labels & valid for task, labels in padded.labeled.items()}
        yield PaddedBatch(
            padded._replace(labeled=labeled), np.arange(start, start + size, dtype=np.int32)
        )
        start += batch.size
