"""What encoders learn from the inputs of the training split before training, such as bins.

An encoder with the methods `needs_inputs` and `learn_from_inputs` gets the training examples of its
modality when an `Experiment` is made. The result is a pure function of the data, so it is not
stored in the configuration: the same experiment always has the same encoders.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Num

from mmjax.data.dataset import Arrays, Dataset, Source

_MAX_EXAMPLES = 65_536  # more, spread over the split, change quantiles by less than a bin's noise
_CHUNK_EXAMPLES = 1024  # examples of a source on disk that are read at once


def read_training_inputs(source: Source, modality: str) -> Num[np.ndarray, "n ..."]:
    """Reads a modality of the examples that have it, at most 65,536 spread over the source."""
    if isinstance(source, Arrays):
        rows = np.flatnonzero(np.asarray(source.batch.present[modality]))
        return np.asarray(source.batch.inputs[modality])[_spread(rows)]
    parts = []
    chosen = _spread(np.arange(len(source)))
    for start in range(0, len(chosen), _CHUNK_EXAMPLES):
        batch = source.take(chosen[start : start + _CHUNK_EXAMPLES])
        parts.append(np.asarray(batch.inputs[modality])[np.asarray(batch.present[modality])])
    return np.concatenate(parts)


def _spread(rows: np.ndarray) -> np.ndarray:
    count = min(len(rows), _MAX_EXAMPLES)
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)] if count else rows


def apply_input_facts(model: Any, data: Dataset) -> Any:
    """Returns the model with encoders fitted to the training inputs; unchanged if none needs it.

    Example:
      >>> from mmjax import Batch, Model
      >>> from mmjax.encoders import PiecewiseLinearEncoder
      >>> from mmjax.fusion import Concat
      >>> from mmjax.heads import Regression
      >>> present = {"body": np.ones(3, bool)}
      >>> train = Arrays(Batch({"body": np.array([[0.0], [1.0], [2.0]])}, present, {}, {}, {}))
      >>> encoders = {"body": PiecewiseLinearEncoder(bins=2)}
      >>> model = Model(encoders, Concat(), {"y": Regression()})
      >>> data = Dataset("toy", {}, {}, {"train": train})
      >>> apply_input_facts(model, data).encoders["body"].edges
      ((0.0, 1.0, 2.0),)
    """
    source = data.splits.get("train")
    learned = {}
    for modality, encoder in model.encoders.items():
        if source is not None and getattr(encoder, "needs_inputs", bool)():
            learned[modality] = encoder.learn_from_inputs(read_training_inputs(source, modality))
    return dataclasses.replace(model, encoders={**model.encoders, **learned}) if learned else model
