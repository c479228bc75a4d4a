"""Data sets: loaders of a user's own data, and built-in data sets, one file per data set."""

from mmjax.data.builtin.av_mnist import av_mnist
from mmjax.data.builtin.digit_pairs import digit_pairs
from mmjax.data.builtin.interactions import interactions
from mmjax.data.builtin.multi_digits import Pairing, fashion_mnist_pairs, multi_fashion, multi_mnist
from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.data.group_modalities import group_modalities
from mmjax.data.kinds import Audio, Image, Label, Labels, Numbers, PointCloud, Text, Value
from mmjax.data.load.from_arrays import from_arrays
from mmjax.data.load.from_table import from_table
from mmjax.data.load.from_tfds import from_tfds

__all__ = [
    "Audio",
    "Image",
    "Label",
    "Labels",
    "Numbers",
    "Pairing",
    "PointCloud",
    "Text",
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
]
