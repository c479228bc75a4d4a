"""Encoders: one modality's array becomes tokens."""

from mmjax.encoders.conv import ConvEncoder
from mmjax.encoders.mlp import MLPEncoder
from mmjax.encoders.recurrent import Cell, RecurrentEncoder, elman, gru, lstm
from mmjax.encoders.text import TextEncoder

__all__ = [
    "Cell",
    "ConvEncoder",
    "MLPEncoder",
    "RecurrentEncoder",
    "TextEncoder",
    "elman",
    "gru",
    "lstm",
]
