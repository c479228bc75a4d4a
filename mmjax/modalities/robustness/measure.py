"""Measures the metrics of a trained model under corruptions of its inputs."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mmjax.data.dataset import Dataset, get_split
from mmjax.metrics.statistics import is_per_example
from mmjax.modalities.robustness.conditions import (
    Condition,
    check_levels,
    list_conditions,
)
from mmjax.modalities.robustness.corruption import corrupt_batch
from mmjax.modalities.robustness.padded_batches import (
    PaddedBatch,
    iterate_padded_batches,
)
from mmjax.runs.trained import Trained
from mmjax.train.evaluation import get_metric_directions, merge_dispatches, summarize_replicas
from mmjax.train.steps.eval_step import make_eval_step
from mmjax.types import Batch, Variables

DEFAULT_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


class RobustnessCurve(NamedTuple):
    """Metrics under one corruption.

    Attributes:
      modality: the corrupted one, or "all".
      corruption: its name.
      values: {metric: [levels seeds]}, means over the draws of the corruption.
    """

    modality: str
    corruption: str
    values: Mapping[str, Float[np.ndarray, "l s"]]


class Robustness(NamedTuple):
    """Metrics of a trained model under all corruptions.

    Attributes:
      split: name of the split.
      levels: from 0 on, rising.
      draws: number of draws of every corruption.
      seeds: training seeds.
      directions: {metric: "max" or "min"}.
      main_metrics: the first metric of every task.
      curves: one per condition.
    """

    split: str
    levels: tuple[float, ...]
    draws: int
    seeds: tuple[int, ...]
    directions: Mapping[str, str]
    main_metrics: tuple[str, ...]
    curves: tuple[RobustnessCurve, ...]


def measure_robustness(
    trained: Trained,
    data: Dataset | None = None,
    conditions: Sequence[Condition] | None = None,
    *,
    split: str = "test",
    levels: Sequence[float] = DEFAULT_LEVELS,
    draws: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Robustness:
    """Measures every metric of every seed under every corruption at every level.

    One compiled program evaluates all levels of a batch; encoders of the modalities that a
    corruption leaves alone run once for all levels. The split is kept in memory.

    Args:
      trained: one seed or several, each of which is evaluated by itself.
      data: the data set; None: that of the run.
      conditions: of `list_conditions`, which chooses corruptions and modalities; None: all. Two
        models are compared under the same ones.
      split: the split to corrupt.
      levels: rising from 0, at most 1.
      draws: how often each corruption is drawn, with the seeds 0, 1, ...
      advance: is called after every condition.

    Raises:
      ValueError: an argument is unknown or out of range, or the data do not fit the model.

    Example:
      >>> trained = mmjax.load("runs/digits")  # doctest: +SKIP
      >>> measure_robustness(trained).curves[0].corruption  # doctest: +SKIP
      'noise'
    """
    levels = check_levels(levels)
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1.")
    data = trained.experiment.data if data is None else data
    source = get_split(data, split)
    if conditions is None:
        conditions = list_conditions(trained.spec, get_split(data, "train"))
    batches = list(iterate_padded_batches(trained, source))
    evaluate = _make_level_program(trained)
    collect_validation = _make_validation_collector(trained, data, evaluate, len(levels))
    curves = []
    for condition in conditions:
        corrupt = _make_corruption_program(condition, levels)
        drawn = []
        for draw in range(draws):
            corrupted = [_corrupt(corrupt, batch, jax.random.key(draw)) for batch in batches]
            options = (len(levels), collect_validation)
            drawn.append(_compute_metrics(trained, evaluate, corrupted, *options))
        values = jax.tree.map(lambda *of_draws: np.mean(of_draws, axis=0), *drawn)
        curves.append(RobustnessCurve(condition.modality, condition.corruption, values))
        advance()
    directions = get_metric_directions(trained.model)
    main_metrics = list_main_metrics(trained)
    return Robustness(split, levels, draws, trained.seeds, directions, main_metrics, tuple(curves))


def list_main_metrics(trained: Trained) -> tuple[str, ...]:
    """Lists the first metric of the head of each task."""
    heads = trained.model.heads
    return tuple(f"{task}/{next(iter(heads[task].metrics), 'loss')}" for task in sorted(heads))


class _Corrupted(NamedTuple):
    """A batch, and what is different at every level: inputs [l b ...] and presence [l b]."""

    batch: Batch
    inputs: dict[str, Any]
    present: dict[str, Any]


_Corrupt = Callable[[Batch, Any, Any], tuple[dict[str, Any], dict[str, Any]]]


def _make_corruption_program(condition: Condition, levels: Sequence[float]) -> _Corrupt:
    """Makes the program (batch, indices, key) -> inputs [l b ...], presence [l b]."""

    @jax.jit
    def corrupt(batch: Batch, indices: Any, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        def corrupt_at(level: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            changed = corrupt_batch(
                condition.corruptions,
                batch,
                level,
                key,
                indices,
                missing=condition.missing,
                together=condition.together,
            )
            inputs = {m: changed.inputs[m] for m in condition.corruptions if m in batch.inputs}
            return inputs, changed.present if condition.missing else {}

        return jax.vmap(corrupt_at)(jnp.asarray(levels, jnp.float32))

    return corrupt


def _corrupt(corrupt: _Corrupt, padded: PaddedBatch, key: Any) -> _Corrupted:
    batch = padded.batch._replace(targets={}, labeled={})
    return _Corrupted(padded.batch, *corrupt(batch, padded.indices, key))


_Evaluate = Callable[[Variables, Batch, dict[str, Any], dict[str, Any]], Any]


def _make_level_program(trained: Trained) -> _Evaluate:
    """Makes the program (variables, batch, inputs, present) -> statistics [l ...]."""
    step = make_eval_step(trained.model, compute_dtype=trained.compute_dtype)

    @jax.jit
    def evaluate(variables: Variables, batch: Batch, inputs: Any, present: Any) -> Any:
        def evaluate_level(inputs: dict[str, Any], present: dict[str, Any]) -> Any:
            changed = {"inputs": batch.inputs | inputs, "present": batch.present | present}
            return step(variables, batch._replace(**changed))

        if not inputs and not present:  # a model without the corrupted modality
            return jax.tree.map(lambda x: x[None], evaluate_level({}, {}))
        return jax.vmap(evaluate_level)(inputs, present)

    return evaluate


def _collect_statistics(
    trained: Trained, evaluate: _Evaluate, corrupted: Sequence[_Corrupted], member: int
) -> Any:
    """Returns one seed's statistics of a whole split [l ...], on the host."""
    variables = trained.list_seed_variables()[member]
    parts = [jax.device_get(evaluate(variables, *batch)) for batch in corrupted]
    return jax.tree.map(merge_dispatches, *parts, is_leaf=is_per_example)


def _compute_metrics(
    trained: Trained,
    evaluate: _Evaluate,
    corrupted: Sequence[_Corrupted],
    levels: int,
    collect_validation: Callable[[int], Any],
) -> dict[str, Float[np.ndarray, "l s"]]:
    """Computes every metric at every level of every seed."""
    rows: list[list[dict[str, float]]] = []
    for member in range(len(trained.seeds)):
        whole = _collect_statistics(trained, evaluate, corrupted, member)
        # A model without the corrupted modality was evaluated once.
        known = len(jax.tree.leaves(whole)[0])
        of_level = []
        for i in range(levels):
            row = min(i, known - 1)
            of_level.append(jax.tree.map(lambda x, row=row: x[row], whole))
        validation = functools.partial(collect_validation, member)
        rows.append(summarize_replicas([trained.model] * levels, of_level, validation))
    return {
        metric: np.array([[row[i][metric] for row in rows] for i in range(levels)])
        for metric in rows[0][0]
    }


def _make_validation_collector(
    trained: Trained, data: Dataset, evaluate: _Evaluate, levels: int
) -> Callable[[int], Any]:
    """Makes the function that returns a seed's statistics of validation, once per level."""

    @functools.cache
    def collect(member: int) -> Any:
        batches = iterate_padded_batches(trained, get_split(data, "validation"))
        clean = [_Corrupted(batch, {}, {}) for batch, _ in batches]
        whole = _collect_statistics(trained, evaluate, clean, member)
        return [jax.tree.map(lambda x: x[0], whole)] * levels

    return collect
