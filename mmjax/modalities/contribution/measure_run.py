"""Measures the contributions of the modalities to a trained model on its data set."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mmjax.data.dataset import Dataset, Source, get_split
from mmjax.modalities.contribution.additive_projection import (
    choose_sample_size,
    project_additively,
)
from mmjax.modalities.contribution.exchanged_inputs import SampledRows, permute_modality
from mmjax.modalities.contribution.information_parts import InformationParts
from mmjax.modalities.contribution.measures import (
    Estimate,
    Key,
    MetricSources,
    compute_measures,
    estimate_measures,
)
from mmjax.modalities.contribution.predicted_parts import decompose_predictions
from mmjax.modalities.contribution.probes import list_probed_tasks, probe_encoders
from mmjax.modalities.contribution.subset_metrics import (
    ExampleRecords,
    SubsetEvaluation,
    make_subset_evaluation,
    record_examples,
    summarize_records,
    tune_on_validation,
)
from mmjax.modalities.subsets import make_all_subsets
from mmjax.runs.examples import iterate_labeled_examples
from mmjax.runs.trained import Trained
from mmjax.train.evaluation import MetricSettings, get_metric_directions
from mmjax.train.steps.forward import compute_features, compute_predictions, get_task_names
from mmjax.types import Batch


class Contribution(NamedTuple):
    """Contributions of the modalities to a trained model.

    Attributes:
      modalities: their names, sorted.
      seeds: the seeds of the model.
      split: the split of the data set.
      examples: number of its examples.
      directions: {metric: "max" or "min"} of the measured metrics.
      metrics: {metric: {(measure, what it is of): estimate}}, see `compute_measures`.
      information: {task: parts per seed}, as of `decompose_predictions`.
    """

    modalities: tuple[str, ...]
    seeds: tuple[int, ...]
    split: str
    examples: int
    directions: Mapping[str, str]
    metrics: Mapping[str, Mapping[Key, Estimate]]
    information: Mapping[str, Sequence[InformationParts]]


class _SeedRecords(NamedTuple):
    """Statistics of one seed's examples, from all sources of the measures."""

    subsets: list[ExampleRecords]
    permuted: dict[str, list[ExampleRecords]]
    sample: ExampleRecords | None
    additive: ExampleRecords | None
    probes: dict[str, ExampleRecords]


def choose_metrics(trained: Trained, names: Sequence[str] = ()) -> dict[str, str]:
    """Returns {metric: "max" or "min"}; by default the first metric of every task's head.

    Raises:
      ValueError: a name is unknown; the message lists all metrics.
    """
    known = get_metric_directions(trained.model)
    heads = trained.model.heads
    default = [f"{t}/{next(iter(heads[t].metrics), 'loss')}" for t in get_task_names(trained.model)]
    for name in names:
        if name not in known:
            raise ValueError(f"unknown metric {name!r}; choose from {sorted(known)}.")
    return {name: known[name] for name in dict.fromkeys(names or default)}


def measure_contribution(
    trained: Trained,
    data: Dataset,
    *,
    split: str = "test",
    metrics: Sequence[str] = (),
    permutations: int = 5,
    sample: int = 256,
    probes: bool = True,
    resamples: int = 200,
    seed: int = 0,
) -> Contribution:
    """Measures what every modality contributes to a trained model, and what they tell together.

    Args:
      trained: the model of one or several seeds, which are measured one by one.
      data: its data set.
      split: the split to evaluate.
      metrics: names such as "digit/accuracy"; (): the first metric of every task.
      permutations: number of permutations of each modality; 0 for none.
      sample: largest number of examples whose modalities are combined for EMAP, see
        `choose_sample_size`, which predicts all pairs of them; 0 for none.
      probes: whether to fit linear probes, which needs the training and validation splits.
      resamples: number of bootstrap samples of the examples.
      seed: seed of permutations, samples and resamples.

    Raises:
      ValueError: an unknown split or metric, or a model of a single modality.

    Example:
      >>> trained = mmjax.load("runs/digits")  # doctest: +SKIP
      >>> measure_contribution(trained, trained.experiment.data)  # doctest: +SKIP
    """
    modalities = tuple(sorted(trained.model.encoders))
    if len(modalities) < 2:
        raise ValueError(
            f"The model has the modality {modalities[0]!r} alone; contributions need two or more."
        )
    directions, source = choose_metrics(trained, metrics), get_split(data, split)
    evaluate = make_subset_evaluation(trained)
    rng = np.random.default_rng([seed, 1])
    size = choose_sample_size(min(sample, len(source)), len(modalities)) if sample else 0
    # Sorted, since a split on disk is read faster in its order.
    rows = np.sort(rng.choice(len(source), size, replace=False))
    permuted = _evaluate_permuted(evaluate, source, modalities, permutations, seed)
    probed = probe_encoders(trained, data, split) if probes else [{} for _ in trained.seeds]
    projected = _project_sample(trained, source, rows, seed) if len(rows) else None
    by_subset = evaluate(source)
    records = _group_by_seed(by_subset, permuted, rows, projected, probed)
    settings = tune_on_validation(trained, data, evaluate)
    draws = [(_resample(rng, len(source)), _resample(rng, len(rows))) for _ in range(resamples)]

    def measure(drawn: Any = (None, None)) -> list[dict[str, dict[Key, float]]]:
        pairs = zip(records, settings, strict=True)
        return [_measure_seed(trained, r, directions, modalities, s, *drawn) for r, s in pairs]

    estimates = _estimate_metrics(directions, measure(), [measure(drawn) for drawn in draws])
    information = decompose_predictions(trained.model, by_subset, modalities)
    parts = modalities, trained.seeds, split, len(source), directions, estimates, information
    return Contribution(*parts)


def _estimate_metrics(
    metrics: Iterable[str],
    measured: Sequence[Mapping[str, dict[Key, float]]],
    resampled: Sequence[Sequence[Mapping[str, dict[Key, float]]]],
) -> dict[str, dict[Key, Estimate]]:
    """Estimates each metric's measures from those of the seeds, and of resampled examples."""
    estimates = {}
    for name in metrics:
        of_resamples = [[of_seed[name] for of_seed in drawn] for drawn in resampled]
        estimates[name] = estimate_measures([of_seed[name] for of_seed in measured], of_resamples)
    return estimates


def _group_by_seed(
    by_subset: Sequence[list[ExampleRecords]],
    permuted: Mapping[str, list[list[list[ExampleRecords]]]],
    rows: Int[np.ndarray, " k"],
    projected: Sequence[ExampleRecords] | None,
    probed: Sequence[dict[str, ExampleRecords]],
) -> list[_SeedRecords]:
    """Collects the statistics of each seed from all sources; `rows` are those of the sample."""
    records = []
    for i, of_seed in enumerate(by_subset):
        whole = jax.tree.map(lambda x: x[rows], of_seed[-1]) if len(rows) else None
        of_permutations = {m: [p[i][0] for p in parts] for m, parts in permuted.items()}
        additive = projected[i] if projected is not None else None
        records.append(_SeedRecords(of_seed, of_permutations, whole, additive, probed[i]))
    return records


def _resample(rng: np.random.Generator, count: int) -> Int[np.ndarray, " n"]:
    """Draws as many numbers below a count, with repetition; none of 0."""
    return (count * rng.random(count)).astype(np.int64)


def _evaluate_permuted(
    evaluate: SubsetEvaluation, source: Source, modalities: Sequence[str], count: int, seed: int
) -> dict[str, list[list[list[ExampleRecords]]]]:
    """Evaluates all modalities together, one of them permuted: {modality: by permutation}."""
    whole = make_all_subsets(len(modalities))[-1:]
    return {
        m: [evaluate(permute_modality(source, m, seed + k), whole) for k in range(count)]
        for m in modalities
    }


def _project_sample(
    trained: Trained, source: Source, rows: Int[np.ndarray, " n"], seed: int
) -> list[ExampleRecords]:
    """Computes the statistics of the additive part of every seed's model on a sample."""
    model, modalities = trained.model, sorted(trained.model.encoders)
    sampled = SampledRows(source, rows)
    batches = list(iterate_labeled_examples(trained.spec, sampled, trained.batch_size))
    batch = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    options: Any = {"compute_dtype": trained.compute_dtype, "train": False}

    @jax.jit
    def project(variables: Any, batch: Batch) -> Any:
        def predict(inputs: Batch) -> Any:
            features, _ = compute_features(model, variables, inputs, **options)
            return compute_predictions(model, variables, features, **options)[0]

        inputs = batch._replace(targets={}, labeled={}, weights={})
        outputs = project_additively(predict, inputs, modalities, seed=seed)
        return record_examples(model, outputs, batch)

    return [jax.device_get(project(v, batch)) for v in trained.list_seed_variables()]


def _measure_seed(
    trained: Trained,
    records: _SeedRecords,
    directions: Mapping[str, str],
    modalities: Sequence[str],
    settings: MetricSettings,
    rows: Any,
    sample_rows: Any,
) -> dict[str, dict[Key, float]]:
    """Computes the measures of every metric of one seed, on some rows of the examples."""
    model = trained.model
    probed = model.clone(heads={t: model.heads[t] for t in list_probed_tasks(model)})

    def summarize(records: ExampleRecords | None, rows: Any = rows, model: Any = model) -> Any:
        return {} if records is None else summarize_records(model, records, rows, settings)

    subsets = [summarize(r) for r in records.subsets]
    permuted = {m: [summarize(r) for r in parts] for m, parts in records.permuted.items() if parts}
    sample, additive = (summarize(r, sample_rows) for r in (records.sample, records.additive))
    probes = {m: summarize(r, model=probed) for m, r in records.probes.items()}
    measures = {}
    for name, direction in directions.items():
        sources = MetricSources(
            subsets=np.array([values[name] for values in subsets]),
            permuted={m: np.mean([v[name] for v in parts]) for m, parts in permuted.items()},
            sample=sample.get(name, np.nan),
            additive=additive.get(name, np.nan),
            probes={m: values[name] for m, values in probes.items() if name in values},
        )
        measures[name] = compute_measures(sources, modalities, maximize=direction == "max")
    return measures
