"""Checks of the inputs of a split against what its modalities promise."""

from collections.abc import Mapping

import numpy as np

from mmjax.data.array_checks import (
    _DataError,
    _finite,
    _first,
    _fits_32_bits,
    _integers,
    _known,
    _mask,
    _numeric,
    _shape,
)
from mmjax.data.dataset import Modality
from mmjax.data.normalize import real
from mmjax.types import Batch


def _not_empty(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    """Refuses a batch that lacks a modality or has no examples."""
    for modality in modalities:
        _known("modality", modality, batch.present, batch.inputs)
        if len(batch.present[modality]) == 0:
            raise _DataError("it has no examples.")


def _some_modality(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    """Refuses examples that have none of the modalities."""
    has_modality = np.any([batch.present[m] for m in modalities], axis=0)
    if not has_modality.all():
        raise _DataError(
            f"row {_first(~has_modality)} has none of the modalities "
            f"{', '.join(sorted(modalities))}; every example needs at least one."
        )


def _input(batch: Batch, modality: str, spec: Modality) -> None:
    """Checks shape, type and values of a modality; missing values and padding may be anything."""
    what = f"modality {modality!r}"
    x, present = np.asarray(batch.inputs[modality]), np.asarray(batch.present[modality])
    _mask(f"present of {what}", present, batch.size)
    _shape(what, x, (len(present), *spec.shape))
    _numeric(what, x)
    where = present
    if spec.sequence:
        _lengths(batch, modality, spec, present)
        where = real(present, np.asarray(batch.lengths[modality]), spec)
    _finite(f"{what} has", x, where)
    _fits_32_bits(what, x, where)


def _lengths(batch: Batch, modality: str, spec: Modality, present: np.ndarray) -> None:
    """Refuses lengths of a sequence outside 1 to its longest."""
    what = f"length of modality {modality!r}"
    if modality not in batch.lengths:
        raise _DataError(f"modality {modality!r} is a sequence and has no lengths.")
    lengths, longest = np.asarray(batch.lengths[modality]), spec.shape[0]
    _shape(what, lengths, present.shape)
    _integers(what, lengths)
    bad = present & ((lengths < 1) | (lengths > longest))
    if bad.any():
        row = _first(bad)
        raise _DataError(f"{what} is {lengths[row]} in row {row}; it must be 1 to {longest}.")
