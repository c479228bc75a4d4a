"""Published encoders whose weights come from files, with the names of their arrays there."""

from mmjax.pretrained.backbones.bert import BERT, bert_names, minilm, roberta_base
from mmjax.pretrained.backbones.clip import (
    CLIPText,
    CLIPVision,
    clip_text_names,
    clip_vision_names,
)
from mmjax.pretrained.backbones.siglip import (
    SigLIPText,
    SigLIPVision,
    siglip_text_names,
    siglip_vision_names,
)
from mmjax.pretrained.backbones.vit import ViT, dinov2, vit_names

__all__ = [
    "BERT",
    "CLIPText",
    "CLIPVision",
    "SigLIPText",
    "SigLIPVision",
    "ViT",
    "bert_names",
    "clip_text_names",
    "clip_vision_names",
    "dinov2",
    "minilm",
    "roberta_base",
    "siglip_text_names",
    "siglip_vision_names",
    "vit_names",
]
