"""Sources of examples that are decoded one by one, on demand or once for all."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mmjax.data.dataset import Arrays, Modality, Source
from mmjax.data.load.examples import Examples
from mmjax.data.load.scan_split import SplitScan
from mmjax.data.normalize import Scale, StandardizedSource, standardize_batch
from mmjax.masks import pad_ragged
from mmjax.types import Batch


class DecodedInputs(NamedTuple):
    """What the first pass over the splits has learned about the inputs.

    Attributes:
      modalities: {modality: its shape, over all splits}.
      dtypes: {modality: type of its numbers before standardization}.
      scales: {modality: its standardization}, for those that have one.
      constants: {modality: which of its features have one value in all training examples}.
      counts: {modality: number of training examples that have it}.
    """

    modalities: Mapping[str, Modality]
    dtypes: Mapping[str, np.dtype]
    scales: Mapping[str, Scale]
    constants: Mapping[str, Bool[np.ndarray, " d"]]
    counts: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A source that reads and decodes its examples on demand.

    Attributes:
      examples: all examples of the split.
      rows: the numbers of the examples that the source has.
      modalities: what the inputs are padded to.
      kinds: {modality: type of its numbers}.
      labels: the targets and label masks of all rows; no inputs.
    """

    examples: Examples
    rows: Int[np.ndarray, " n"]
    modalities: Mapping[str, Modality]
    kinds: Mapping[str, np.dtype]
    labels: Batch

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        examples = self.examples.fetch(self.rows[indices].tolist())
        labels = Arrays(self.labels).take(indices)
        return stack_examples([e.inputs for e in examples], self.modalities, self.kinds, labels)


def stack_examples(
    inputs: Sequence[Mapping[str, np.ndarray | None]],
    modalities: Mapping[str, Modality],
    kinds: Mapping[str, np.dtype],
    labels: Batch,
) -> Batch:
    """Stacks examples to a batch; missing modalities and padding become zeros."""
    batch = labels._replace(inputs={}, present={}, lengths={})
    for name, spec in modalities.items():
        values = [example[name] for example in inputs]
        batch.inputs[name] = pad_ragged(values, spec.shape, kinds[name])
        batch.present[name] = np.array([value is not None for value in values], bool)
        if spec.sequence:
            lengths = [0 if value is None else len(value) for value in values]
            batch.lengths[name] = np.array(lengths, np.int32)
    return batch


def make_decoded_source(
    examples: Examples, scan: SplitScan, inputs: DecodedInputs, labels: Batch, in_memory: bool
) -> Source:
    """Makes the source of a split, of the decoded inputs of its scan or of examples on demand."""
    modalities, dtypes, scales = inputs.modalities, inputs.dtypes, inputs.scales
    if in_memory:
        batch = stack_examples(scan.inputs, modalities, dtypes, labels)
        return Arrays(standardize_batch(batch, modalities, scales))
    source = Decoded(examples, np.array(scan.rows), modalities, dtypes, labels)
    return StandardizedSource(source, modalities, scales) if scales else source
