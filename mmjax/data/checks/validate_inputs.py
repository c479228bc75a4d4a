"""Checks of the inputs of a split against what its modalities promise."""

from collections.abc import Mapping

import numpy as np

from mmjax.data.checks.array_checks import (
    InvalidDataError,
    check_finite,
    check_fits_32_bits,
    check_integers,
    check_known,
    check_mask,
    check_numeric,
    check_shape,
    find_first_row,
)
from mmjax.data.dataset import Modality
from mmjax.data.normalize import make_validity_mask
from mmjax.types import Batch


def check_not_empty(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    """Refuses a batch that lacks a modality or has no examples."""
    for modality in modalities:
        check_known("modality", modality, batch.present, batch.inputs)
        if len(batch.present[modality]) == 0:
            raise InvalidDataError("it has no examples.")


def check_some_modality(batch: Batch, modalities: Mapping[str, Modality]) -> None:
    """Refuses examples that have none of the modalities."""
    has_modality = np.any([batch.present[m] for m in modalities], axis=0)
    if not has_modality.all():
        raise InvalidDataError(
            f"row {find_first_row(~has_modality)} has none of the modalities "
            f"{', '.join(sorted(modalities))}; every example needs at least one."
        )


def check_input(batch: Batch, modality: str, spec: Modality) -> None:
    """Checks shape, type and values of a modality; missing values and padding may be anything."""
    check_layout(batch, modality, spec)
    check_values(batch, modality, spec)


def check_layout(batch: Batch, modality: str, spec: Modality) -> None:
    """Checks shape, type and lengths of a modality, but not its numbers."""
    what = f"modality {modality!r}"
    x, present = np.asarray(batch.inputs[modality]), np.asarray(batch.present[modality])
    check_mask(f"present of {what}", present, batch.size)
    check_shape(what, x, (len(present), *spec.shape))
    check_numeric(what, x)
    if spec.sequence:
        _check_lengths(batch, modality, spec, present)


def check_values(batch: Batch, modality: str, spec: Modality) -> None:
    """Checks the numbers of a modality; missing values and padding may be anything."""
    what = f"modality {modality!r}"
    x, where = np.asarray(batch.inputs[modality]), np.asarray(batch.present[modality])
    if spec.sequence:
        where = make_validity_mask(where, np.asarray(batch.lengths[modality]), spec)
    check_finite(f"{what} has", x, where)
    check_fits_32_bits(what, x, where)


def _check_lengths(batch: Batch, modality: str, spec: Modality, present: np.ndarray) -> None:
    """Refuses lengths of a sequence outside 1 to its longest."""
    what = f"length of modality {modality!r}"
    if modality not in batch.lengths:
        raise InvalidDataError(f"modality {modality!r} is a sequence and has no lengths.")
    lengths, longest = np.asarray(batch.lengths[modality]), spec.shape[0]
    check_shape(what, lengths, present.shape)
    check_integers(what, lengths)
    bad = present & ((lengths < 1) | (lengths > longest))
    if bad.any():
        row = find_first_row(bad)
        raise InvalidDataError(f"{what} is {lengths[row]} in row {row}; it must be 1 to {longest}.")
