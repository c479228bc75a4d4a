"""Pretrained models: weights from files of other libraries and of mmjax's own runs."""

from mmjax.pretrained.lora import LoRA, merge_lora
from mmjax.pretrained.renaming import Rename
from mmjax.pretrained.weight_loading import Weights, weights

__all__ = ["LoRA", "Rename", "Weights", "merge_lora", "weights"]
