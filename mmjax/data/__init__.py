"""Data sets: loaders of a user's own data, and built-in data sets, one file per data set."""

from mmjax.data.builtin.av_mnist import av_mnist
from mmjax.data.builtin.digit_pairs import digit_pairs
from mmjax.data.builtin.interactions import interactions
from mmjax.data.builtin.multi_digits import Pairing, fashion_mnist_pairs, multi_fashion, multi_mnist
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.data.group_modalities import group_modalities
from mmjax.data.kinds import (
    Audio,
    Boolean,
    Category,
    DateTime,
    DepthMap,
    Image,
    ImageBag,
    Label,
    Labels,
    LabelSet,
    Mask,
    Numbers,
    PointCloud,
    Shares,
    Spans,
    Text,
    TokenLabels,
    Value,
)
from mmjax.data.load.from_arrays import from_arrays
from mmjax.data.load.from_table import from_table
from mmjax.data.load.from_tfds import from_tfds
from mmjax.data.load.split_rows import Split, split_arrays
from mmjax.data.load.stored.stream_table import Streaming
from mmjax.data.load.tables.dialect import Dialect
from mmjax.data.sampling.samplers import ClassBalanced, Stratified, TaskMixture

__all__ = [
    "Audio",
    "Boolean",
    "Category",
    "ClassBalanced",
    "DateTime",
    "DepthMap",
    "Dialect",
    "Image",
    "ImageBag",
    "Label",
    "LabelSet",
    "Labels",
    "Mask",
    "Numbers",
    "Pairing",
    "PointCloud",
    "Shares",
    "Spans",
    "Split",
    "Stratified",
    "Streaming",
    "TaskMixture",
    "Text",
    "TokenLabels",
    "Value",
    "av_mnist",
    "digit_pairs",
    "fashion_mnist_pairs",
    "from_arrays",
    "from_table",
    "from_tfds",
    "group_modalities",
    "interactions",
    "multi_fashion",
    "multi_mnist",
    "polyglot_digits",
    "split_arrays",
]
