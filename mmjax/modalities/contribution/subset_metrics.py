"""Metrics of every subset of the modalities, from statistics that are kept per example."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Int

from mmjax.data.dataset import Dataset, Source, get_split
from mmjax.metrics import PerExample
from mmjax.metrics.direction import get_tuning
from mmjax.metrics.statistics import is_per_example
from mmjax.modalities.subsets import make_all_subsets, predict_from_subsets
from mmjax.model import Model
from mmjax.runs.examples import iterate_labeled_examples, pad_batch
from mmjax.runs.trained import Trained
from mmjax.train.evaluation import (
    MetricSettings,
    MetricValues,
    summarize_statistics,
    tune_metrics,
)
from mmjax.train.steps.eval_step import compute_statistics
from mmjax.types import Batch, Variables

ExampleRecords = Mapping[str, Mapping[str, Any]]
"""{task: {statistic: [n ...] or `PerExample` of [n 1 ...]}}: the statistics of single examples."""


def record_examples(model: Model, predictions: dict[str, Array], batch: Batch) -> ExampleRecords:
    """Computes the statistics of every example by itself, so that any of them can be summarized.

    Args:
      model: the model, whose heads have the statistics.
      predictions: {task: [b ...]}.
      batch: the examples' targets, labels and presence.
    """

    def record_one(predictions: Any, example: Batch) -> Any:
        predictions, example = jax.tree.map(lambda x: x[None], (predictions, example))
        return compute_statistics(model, predictions, example)

    return jax.vmap(record_one)(predictions, batch._replace(inputs={}, lengths={}))


def summarize_records(
    model: Model,
    records: ExampleRecords,
    rows: Int[np.ndarray, " k"] | None = None,
    settings: MetricSettings | None = None,
) -> MetricValues:
    """Computes the metrics {"TASK/METRIC": value} of some examples, such as a bootstrap's.

    Args:
      model: the model, whose heads have the metrics.
      records: those of `record_examples`, as NumPy arrays.
      rows: numbers of the examples, repeated ones included; None: all.
      settings: {task: {tuned metric: what it learned from the validation split}}.
    """
    chosen = slice(None) if rows is None else rows
    return summarize_statistics(model, join_records(records, chosen), settings)


SubsetEvaluation = Callable[..., list[list[ExampleRecords]]]


def make_subset_evaluation(trained: Trained) -> SubsetEvaluation:
    """Makes the function (split, subsets) -> statistics of every example, by seed and by subset.

    All subsets are one program, which encodes every modality once; it is compiled at the first
    call. The split is read one batch after the other. An example that lacks a modality lacks it in
    every subset. `subsets`, Bool[s m] in the order of the sorted modalities, are all 2^M of them by
    default.
    """
    model = trained.model
    every_subset = make_all_subsets(len(model.encoders))

    @jax.jit
    def evaluate_batch(variables: Variables, batch: Batch, subsets: Any) -> Any:
        predictions = predict_from_subsets(
            model, variables, batch, subsets, compute_dtype=trained.compute_dtype
        )
        return jax.vmap(lambda outputs: record_examples(model, outputs, batch))(predictions)

    members = trained.list_seed_variables()

    def evaluate(
        source: Source, subsets: Bool[np.ndarray, "s m"] = every_subset
    ) -> list[list[ExampleRecords]]:
        parts = []
        for batch in iterate_labeled_examples(trained.spec, source, trained.batch_size):
            # The last batch is padded, so that the program is compiled once.
            padded, size = pad_batch(batch, trained.batch_size), batch.size
            records = jax.device_get([evaluate_batch(v, padded, subsets) for v in members])
            parts.append(jax.tree.map(lambda x, size=size: np.asarray(x)[:, :size], records))
        if not parts:
            raise ValueError("no examples were given.")
        whole = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
        return [
            [jax.tree.map(lambda x, j=j: x[j], of_seed) for j in range(len(subsets))]
            for of_seed in whole
        ]

    return evaluate


def tune_on_validation(
    trained: Trained, data: Dataset, evaluate: SubsetEvaluation
) -> list[MetricSettings]:
    """Tunes the metrics with thresholds on validation predictions from all modalities, per seed."""
    heads = trained.model.heads.values()
    extra = [m for head in heads for m in getattr(head, "extra_metrics", {}).values()]
    if all(get_tuning(metric) is None for metric in extra):
        return [{} for _ in trained.seeds]
    whole = make_all_subsets(len(trained.model.encoders))[-1:]
    records = evaluate(get_split(data, "validation"), whole)
    return [tune_metrics(trained.model, join_records(seed[0])) for seed in records]


def join_records(records: ExampleRecords, rows: Any = slice(None)) -> Any:
    """Sums the statistics of some examples, and joins those that are kept per example."""

    def join(x: Any) -> Any:
        if not is_per_example(x):
            return np.asarray(x)[rows].sum(axis=0, dtype=np.float64)
        values, labeled = np.asarray(x.values)[rows], np.asarray(x.labeled)[rows]
        return PerExample(values.reshape(-1, *values.shape[2:]), labeled.reshape(-1))

    return jax.tree.map(join, records, is_leaf=is_per_example)
