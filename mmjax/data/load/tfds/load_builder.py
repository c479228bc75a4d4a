"""Loads a TFDS builder as a data set."""

import os
from collections.abc import Mapping
from typing import Any

from mmjax.data.dataset import Dataset
from mmjax.data.kinds import Input, Target, get_columns, list_columns
from mmjax.data.load.assemble import Reading, build_dataset
from mmjax.data.load.check_dataset import check_sizes
from mmjax.data.load.tfds import records
from mmjax.data.load.tfds.features import select_features
from mmjax.data.load.tfds.sources import (
    count_examples,
    list_shards,
    open_sources,
    prepare_builder,
)


def load_builder(
    builder: Any,
    inputs: Mapping[str, str | Input],
    targets: Mapping[str, str | Target],
    weights: Mapping[str, str],
    splits: Mapping[str, str] | None,
    data_dir: str | os.PathLike[str] | None,
    name: str | None,
    reading: Reading,
) -> Dataset:
    """Loads a builder; the arguments are those of `from_tfds`."""
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
        reading=reading._replace(scan_files=list_shards(ready, [*chosen.values()])),
    )
