"""Data sets from TFDS builders: which features are modalities, and which are tasks."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target, get_columns, list_columns
from mmjax.data.load.assemble import Reading, build_dataset
from mmjax.data.load.check_dataset import check_sizes, check_standardize_names
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

    The path of a feature is its name, or "outer/inner" for a nested one. Absent optional features,
    empty texts and sequences, the class -1, and NaN are missing. All examples are read once to
    check them. A summary is printed to the standard error stream.

    Args:
      builder: a `tfds.core.DatasetBuilder`, or the name of one, such as "mnist" or
        "glue/sst2:2.*.*". If it is not prepared, it is first, as array records, which can be read
        in any order.
      inputs: {modality: path}, or a `Text`, `Image`, `Audio`, `Numbers` or `PointCloud` of paths
        that says how a feature is read. By its path alone an image stays as it is, a text becomes
        bytes, a recording log-mel frames; a tensor whose first axis is not fixed is a sequence.
        Samples that are stored as a tensor need an `Audio` with their sample_rate. Images of more
        pixels than the limit are refused; an `Image` with max_pixels raises it.
      targets: {task: path}, or a `Label`, `Labels` or `Value` of paths. By its path alone a class
        label, a whole number or a text is a classification, a sequence of class labels or a
        vector of 0 and 1 several labels, and a floating-point number a regression.
      weights: {task: path of its examples' weights}; see `mmjax.data.sampling.example_weights`.
      splits: {split: its name in TFDS}, such as {"train": "train[:90%]", "validation":
        "train[90%:]", "test": "test"}; None: the splits of the builder.
      data_dir: folder of TFDS data sets, for a builder given by its name; None: TFDS's default.
      name: name of the data set; None: that of the builder.
      in_memory: whether all examples are kept decoded; False reads them on demand.
      standardize: modalities that get mean 0 and standard deviation 1 over the training split;
        None: all whose numbers are floating-point.
      skip_unreadable: whether examples that cannot be decoded are left out with a warning instead
        of refused.
      scan_cache: folder that keeps what the first pass over the examples finds, for
        in_memory=False: a later start with unchanged files (by size and time) does not repeat it,
        and one that was stopped continues it. None: the pass is made at every start.

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
    from mmjax.data.load.tfds import records
    from mmjax.data.load.tfds.features import select_features
    from mmjax.data.load.tfds.sources import (
        count_examples,
        list_shards,
        open_sources,
        prepare_builder,
    )

    ready = prepare_builder(builder, data_dir)
    name, features = name or ready.name, ready.info.features
    selected = select_features(features, list_columns([*inputs.values(), *targets.values()]))
    chosen = splits or {s: s for s in ready.info.splits}
    check_sizes(name, {s: count_examples(ready, part) for s, part in chosen.items()})
    limits: dict[str, int] = {}
    for spec in [*inputs.values(), *targets.values()]:
        if (limit := getattr(spec, "max_pixels", None)) is not None:
            limits |= dict.fromkeys(get_columns(spec), limit)
    sources = open_sources(ready, chosen, selected, limits)
    goals = {t: records.make_goal(features, spec) for t, spec in targets.items()}
    train = sources["train"]
    readers = {m: records.make_reader(features, spec, train) for m, spec in inputs.items()}
    weighed = {}
    if weights:
        sparse = open_sources(ready, chosen, select_features(features, [*weights.values()]))
        weighed = {s: records.read_weights(s, source, weights) for s, source in sparse.items()}
    return build_dataset(
        name,
        {s: records.Records(s, source, readers, goals) for s, source in sources.items()},
        modalities={m: records.declare_modality(features, r) for m, r in readers.items()},
        kinds={m: (r.spec, r.learned) for m, r in readers.items()},
        tasks={t: records.declare_task(spec) for t, spec in goals.items()},
        weights=weighed,
        reading=Reading(
            in_memory,
            standardize,
            skip_unreadable,
            scan_cache=scan_cache,
            scan_files=list_shards(ready, [*chosen.values()]),
        ),
    )
