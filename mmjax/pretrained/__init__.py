"""Pretrained models: weights from files of other libraries and of mmjax's own runs."""

from mmjax.pretrained.renaming import Rename
from mmjax.pretrained.weight_loading import Weights, weights

__all__ = ["Rename", "Weights", "weights"]
