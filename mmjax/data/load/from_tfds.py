"""Data sets from TFDS builders: which features are modalities, and which are tasks."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target
from mmjax.data.load.assemble import Reading
from mmjax.data.load.check_dataset import check_standardize_names
from mmjax.data.sampling.example_weights import check_weight_names
from mmjax.deprecation import refuse_old_arguments


@refuse_old_arguments(standardise="standardize")
def from_tfds(
    builder: Any,
    inputs: Mapping[str, str | Input],
    targets: Mapping[str, str | Target],
    *,
    weights: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
    in_memory: bool = True,
    standardize: Sequence[str] | None = None,
    skip_unreadable: bool = False,
    scan_cache: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Makes a data set from a TFDS builder, read without TensorFlow.

    The path of a feature is its name, or "outer/inner" for a nested one. `docs/data.md` states what
    features become, and what is missing. A summary is printed to the standard error stream.

    Args:
      builder: a `tfds.core.DatasetBuilder`, or the name of one, such as "mnist" or
        "glue/sst2:2.*.*". If it is not prepared, it is first, as array records.
      inputs: {modality: path, or an input kind of paths, such as `Text`}.
      targets: {task: path, or a `Label`, `Labels` or `Value` of paths}.
      weights: {task: path of its examples' weights}; see `mmjax.data.sampling.example_weights`.
      splits: {split: its name in TFDS}, such as {"train": "train[:90%]", "validation":
        "train[90%:]", "test": "test"}; None: the splits of the builder.
      data_dir: folder of TFDS data sets, for a builder given by its name; None: TFDS's default.
      name: name of the data set; None: that of the builder.
      in_memory: whether all examples are kept decoded; False reads them on demand.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      skip_unreadable: whether examples that cannot be decoded are left out with a warning.
      scan_cache: folder that keeps what the pass over all examples finds, for in_memory=False, so
        that it continues where it stopped, and a later start with unchanged files skips it.

    Raises:
      ValueError: naming the feature, or the split and the example, of what is wrong.
    """
    if not inputs or not targets:
        raise ValueError("inputs and targets each need at least one feature.")
    check_standardize_names(standardize, inputs)
    if scan_cache is not None and in_memory:
        raise ValueError("scan_cache is for in_memory=False; give that, or leave it out.")
    weights = weights or {}
    check_weight_names(weights, targets)
    from mmjax.data.load.tfds.load_builder import load_builder  # tensorflow_datasets is optional

    reading = Reading(in_memory, standardize, skip_unreadable, scan_cache=scan_cache)
    return load_builder(builder, inputs, targets, weights, splits, data_dir, name, reading)
