"""Published encoders whose weights come from files, with the names of their arrays there."""

from mmjax.pretrained.backbones.bert import BERT, bert_names, minilm, roberta_base
from mmjax.pretrained.backbones.clip import (
    CLIPText,
    CLIPVision,
    clip_text_names,
    clip_vision_names,
)
from mmjax.pretrained.backbones.convnext import ConvNeXt, convnext_names
from mmjax.pretrained.backbones.resnet import ResNet, resnet18, resnet50, resnet_names
from mmjax.pretrained.backbones.siglip import (
    SigLIPText,
    SigLIPVision,
    siglip_text_names,
    siglip_vision_names,
)
from mmjax.pretrained.backbones.token_table import MeanPooling, token_table, token_table_names
from mmjax.pretrained.backbones.vit import ViT, dinov2, vit_names
from mmjax.pretrained.backbones.wav2vec2 import Wav2Vec2, wav2vec2_names
from mmjax.pretrained.backbones.whisper import WhisperEncoder, whisper_names

__all__ = [
    "BERT",
    "CLIPText",
    "CLIPVision",
    "ConvNeXt",
    "MeanPooling",
    "ResNet",
    "SigLIPText",
    "SigLIPVision",
    "ViT",
    "Wav2Vec2",
    "WhisperEncoder",
    "bert_names",
    "clip_text_names",
    "clip_vision_names",
    "convnext_names",
    "dinov2",
    "minilm",
    "resnet18",
    "resnet50",
    "resnet_names",
    "roberta_base",
    "siglip_text_names",
    "siglip_vision_names",
    "token_table",
    "token_table_names",
    "vit_names",
    "wav2vec2_names",
    "whisper_names",
]
