"""Checks that the monitored metric can be computed from the labels of the validation split."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mmjax.data.dataset import Arrays, select_modalities_and_tasks
from mmjax.experiment import Experiment
from mmjax.train.evaluation import summarize_replicas
from mmjax.train.hardware.compilation import RUN_ONCE_OPTIONS, compile_with_options
from mmjax.train.steps.eval_step import compute_statistics
from mmjax.types import Batch

_MAX_NUMBERS = 10_000_000  # of predictions that are drawn; more would take seconds


def check_monitor(experiment: Experiment, predictions: Mapping[str, Any]) -> None:
    """Refuses a monitor that is NaN whatever the model predicts.

    That is known before training if the validation split is in memory. Metrics of very many numbers
    are computed in the first validation only.

    Args:
      experiment: the experiment, whose monitor is known to exist.
      predictions: {task: shape of the predictions for a batch}.

    Raises:
      ValueError: naming the monitor, and the task or the labels that it lacks.
    """
    model, monitor = experiment.model, experiment.monitor
    source = experiment.data.splits["validation"]
    if not isinstance(source, Arrays):
        return
    task, _, metric = monitor.rpartition("/")
    tasks = [task] if task in model.heads else list(model.heads)
    for name in tasks:
        if not np.any(source.batch.labeled[name]):
            others = [known for known in model.heads if np.any(source.batch.labeled[known])]
            raise ValueError(
                f"monitor {monitor!r} cannot be computed: no example of the validation split has a "
                f"label of task {name!r}. Label some of them, or monitor a metric of "
                f"{' or '.join(map(repr, others)) or 'a task that has labels'}."
            )
    sizes = [math.prod(predictions[name].shape[1:]) for name in tasks]
    if metric == "loss" or source.batch.size * max(sizes) > _MAX_NUMBERS:
        return
    heads = {name: model.heads[name] for name in tasks}
    batch = select_modalities_and_tasks(source.batch, tuple(model.encoders), tuple(tasks))
    batch = jax.tree.map(jnp.asarray, batch._replace(inputs={}, lengths={}))
    drawn = {name: _draw_predictions(predictions[name], batch, name) for name in tasks}
    part = model.clone(heads=heads)
    # Compiled, since one by one the operations would take ten times as long to compile.
    lowered = jax.jit(functools.partial(compute_statistics, part)).lower(drawn, batch)
    compute = compile_with_options(lowered, RUN_ONCE_OPTIONS)
    statistics = [jax.device_get(compute(drawn, batch))]
    value = summarize_replicas([part], statistics, lambda: statistics)[0][monitor]
    if math.isnan(value):
        raise ValueError(
            f"monitor {monitor!r} cannot be computed from the labels of the validation split: it "
            "is NaN for any prediction, as where all labels are equal. Give the split other "
            'examples, or monitor another metric, such as "loss".'
        )


def _draw_predictions(shape: jax.ShapeDtypeStruct, batch: Batch, task: str) -> Array:
    """Draws predictions for a split; of numbers, those of other examples, which are in range."""
    target, labeled = np.asarray(batch.targets[task]), np.asarray(batch.labeled[task])
    if target.dtype.kind == "f" and target.shape[1:] == shape.shape[1:]:
        rows = np.flatnonzero(labeled)
        values = target.copy()
        values[rows] = target[np.roll(rows, 1)]
        return jnp.asarray(values)
    draws = np.random.default_rng(0).normal(size=(batch.size, *shape.shape[1:]))
    return jnp.asarray(draws, jnp.float32)
