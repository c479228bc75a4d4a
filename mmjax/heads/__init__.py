"""Heads: a task's features become a prediction, with the loss and the metrics of the task.

A head is a Flax module with the methods of `mmjax.protocols.Head`. Besides `__call__` they are pure
and need no parameters: `example_loss` and `statistics` for ONE example, `summary` for the
statistics of a split (see `mmjax.metrics`), and `check` against the task that the data set
declares. `summary` reads its own statistics by name and ignores other entries, such as the "loss"
and "examples" that evaluation adds. Predictions and losses are at least float32 for every compute
type. A target of zeros is valid for every head.

A head's `features` says what it is called with: "vector" [b d], "tokens" [b n d], or "any" of both.
Those that take tokens have an attribute `tokens`, the modality of these tokens.

Late fusion averages the predictions of its branches, unless the head has a method
`combine({branch: prediction [b ...]}, {branch: weight [b]})`, as `Evidential` does.
"""

from mmjax.heads.base import Better, Loss
from mmjax.heads.class_weights import EffectiveNumber
from mmjax.heads.classification import Classification
from mmjax.heads.cosine_classification import CosineClassification
from mmjax.heads.depth import Depth
from mmjax.heads.evidential import EnergyWeighted, Evidential
from mmjax.heads.multilabel import MultiLabel
from mmjax.heads.ordinal import Ordinal
from mmjax.heads.regression import Regression
from mmjax.heads.segmentation import Segmentation
from mmjax.heads.sequence_labeling import SequenceLabeling

__all__ = [
    "Better",
    "Classification",
    "CosineClassification",
    "Depth",
    "EffectiveNumber",
    "EnergyWeighted",
    "Evidential",
    "Loss",
    "MultiLabel",
    "Ordinal",
    "Regression",
    "Segmentation",
    "SequenceLabeling",
]
