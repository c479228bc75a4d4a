"""Encoders: one modality's array becomes tokens.

An encoder is a Flax module with the call of `mmjax.protocols.Encoder`:
(x [b ...], length [b] or None, *, train) -> Tokens [b n d].
"""

from mmjax.encoders.conv import ConvEncoder
from mmjax.encoders.conv1d import Conv1dEncoder
from mmjax.encoders.deep_sets import DeepSetsEncoder
from mmjax.encoders.each import EachEncoder
from mmjax.encoders.features import Features
from mmjax.encoders.graph import GraphEncoder
from mmjax.encoders.maxout import MaxoutEncoder
from mmjax.encoders.mlp import MLPEncoder
from mmjax.encoders.periodic import PeriodicEncoder
from mmjax.encoders.piecewise_linear import PiecewiseLinearEncoder, compute_bin_edges
from mmjax.encoders.recurrent import RecurrentEncoder
from mmjax.encoders.recurrent_cells import Cell, elman, gru, lstm
from mmjax.encoders.residual import ResidualEncoder
from mmjax.encoders.temporal_conv import TemporalConvEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.encoders.transformer import TransformerEncoder
from mmjax.encoders.wrap import Wrap

__all__ = [
    "Cell",
    "Conv1dEncoder",
    "ConvEncoder",
    "DeepSetsEncoder",
    "EachEncoder",
    "Features",
    "GraphEncoder",
    "MLPEncoder",
    "MaxoutEncoder",
    "PeriodicEncoder",
    "PiecewiseLinearEncoder",
    "RecurrentEncoder",
    "ResidualEncoder",
    "TemporalConvEncoder",
    "TextEncoder",
    "TransformerEncoder",
    "Wrap",
    "compute_bin_edges",
    "elman",
    "gru",
    "lstm",
]
