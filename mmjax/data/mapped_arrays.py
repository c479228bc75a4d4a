"""A source of examples whose arrays are memory-mapped files."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmjax.data.dataset import Arrays, Modality
from mmjax.data.normalize import Scale, make_validity_mask, standardize_batch
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class MappedArrays:
    """Arrays of which some are memory maps: examples are read and converted when they are taken.

    Attributes:
      batch: all examples, as they were given.
      modalities: what the inputs are.
      scales: {modality: its standardization}.
      dtypes: {modality: type of its numbers after conversion}, at most 32 bits wide.

    Example:
      >>> batch = Batch({"x": np.array([1, 3])}, {"x": np.ones(2, bool)}, {}, {}, {})
      >>> source = MappedArrays(batch, {"x": Modality(())}, {}, {"x": np.dtype(np.float32)})
      >>> source.take(np.array([1])).inputs["x"]
      array([3.], dtype=float32)
    """

    batch: Batch
    modalities: Mapping[str, Modality]
    scales: Mapping[str, Scale]
    dtypes: Mapping[str, np.dtype]

    def __len__(self) -> int:
        return self.batch.size

    def take(self, indices: np.ndarray) -> Batch:
        """Returns the examples at `indices`, in that order."""
        batch = Arrays(self.batch).take(indices)
        batch = batch._replace(inputs={m: np.array(x) for m, x in batch.inputs.items()})
        return convert_inputs(batch, self.modalities, self.scales, self.dtypes)


def convert_inputs(
    batch: Batch,
    modalities: Mapping[str, Modality],
    scales: Mapping[str, Scale],
    dtypes: Mapping[str, np.dtype],
) -> Batch:
    """Standardizes the modalities that have a scale, and converts the others to their types.

    What is missing or padding becomes 0. Arrays without either that have their type are not copied.
    """
    batch = standardize_batch(batch, modalities, scales)
    for name in modalities.keys() - scales.keys():
        x, lengths = batch.inputs[name], batch.lengths.get(name)
        is_real = make_validity_mask(batch.present[name], lengths, modalities[name])
        if not is_real.all():
            converted = np.zeros(x.shape, dtypes[name])
            where = is_real.reshape(*is_real.shape, *(1,) * (x.ndim - is_real.ndim))
            np.copyto(converted, x, where=where, casting="unsafe")
            x = converted
        batch.inputs[name] = x.astype(dtypes[name], copy=False)
    return batch


def is_memory_map(x: np.ndarray) -> bool:
    """Checks whether an array is memory-mapped; results computed from memory maps are not."""
    return isinstance(x, np.memmap) and getattr(x, "_mmap", None) is not None


def make_array_source(
    batch: Batch,
    modalities: Mapping[str, Modality],
    scales: Mapping[str, Scale],
    dtypes: Mapping[str, np.dtype],
) -> Arrays | MappedArrays:
    """Converts the inputs, or leaves all to be read when needed if one is a memory map."""
    if any(is_memory_map(x) for x in batch.inputs.values()):
        return MappedArrays(batch, modalities, scales, dtypes)
    return Arrays(convert_inputs(batch, modalities, scales, dtypes))


def select_input(source: Arrays | MappedArrays, modality: str) -> Arrays | MappedArrays:
    """Returns the source of one modality alone, without targets.

    Example:
      >>> everywhere = {"a": np.ones(2, bool), "b": np.ones(2, bool)}
      >>> source = Arrays(Batch({"a": np.arange(2), "b": np.arange(2)}, everywhere, {}, {}, {}))
      >>> list(select_input(source, "b").batch.inputs)
      ['b']
    """
    whole = source.batch
    lengths = {modality: whole.lengths[modality]} if modality in whole.lengths else {}
    inputs, present = {modality: whole.inputs[modality]}, {modality: whole.present[modality]}
    batch = Batch(inputs, present, lengths, {}, {})
    if isinstance(source, Arrays):
        return Arrays(batch)
    scales = {m: scale for m, scale in source.scales.items() if m == modality}
    modalities = {modality: source.modalities[modality]}
    return dataclasses.replace(source, batch=batch, modalities=modalities, scales=scales)
