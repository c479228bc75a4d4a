"""Evaluation of all replicas on a split, by the programs of their training."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mmjax.data.pipeline import compute_process_share
from mmjax.data.sampling.batch_order import make_eval_indices
from mmjax.metrics.statistics import is_per_example
from mmjax.train.evaluation import (
    MetricValues,
    SplitStatistics,
    merge_dispatches,
    summarize_replicas,
)
from mmjax.train.hardware.parallel import EvalProgram
from mmjax.train.programs import Programs
from mmjax.train.steps.forward import get_loss_names
from mmjax.train.steps.state import LoopState
from mmjax.types import Variables


def evaluate_split(programs: Programs, variables: Variables, split: str) -> list[MetricValues]:
    """Returns the metrics of every replica's variables, as of `Model.apply`, on a split."""
    statistics = collect_split_statistics(programs, variables, split)
    return summarize_split(programs, variables, statistics)


def summarize_split(
    programs: Programs, variables: Variables, statistics: Sequence[SplitStatistics]
) -> list[MetricValues]:
    """Returns the metrics of every replica's statistics of its variables on a split."""
    collect = functools.partial(collect_split_statistics, programs, variables, "validation")
    return summarize_replicas(programs.models, statistics, collect)


def collect_split_statistics(
    programs: Programs, variables: Variables, split: str
) -> list[SplitStatistics]:
    """Returns the statistics of every replica's variables on a split, on the host."""
    return _run_on_split(programs, programs.eval_program, variables, split)


def validate_balancer(programs: Programs, state: LoopState) -> LoopState:
    """Lets the balancer compare the losses on the training and the validation split."""
    if programs.loss_program is None:
        return state
    names, losses = get_loss_names(programs.experiment.model), []
    for split in ("train", "validation"):
        statistics = _run_on_split(programs, programs.loss_program, state.eval_variables, split)
        losses.append(programs.place(_average_losses(statistics, names)))
    old = state.train.balancer_state, state.train.params
    changed = programs.place(programs.validation_program(programs.values, *old, *losses))
    return state._replace(train=state.train._replace(**changed))


def _average_losses(
    statistics: Sequence[SplitStatistics], names: Sequence[str]
) -> Float[Array, "s t"]:
    """Returns the mean losses of every replica; NaN if a loss has no label in the split."""
    means = np.full((len(statistics), len(names)), np.nan, np.float32)
    for i, sums in enumerate(statistics):
        for j, name in enumerate(names):
            if sums[name]["examples"] > 0:
                means[i, j] = sums[name]["loss"] / sums[name]["examples"]
    return jnp.asarray(means)


def _run_on_split(
    programs: Programs, program: EvalProgram, variables: Variables, split: str
) -> list[SplitStatistics]:
    """Returns the statistics that a program computes of a whole split, by replica."""
    e, replicas = programs.experiment, len(programs.seeds)
    chunks = make_eval_indices(programs.splits.size(split), e.eval_batch_size, e.steps_per_dispatch)
    dispatches = programs.splits.feed(split).chunks([indices[None] for indices, _ in chunks])
    share, parts = compute_process_share(programs.devices), []
    for (data, indices), (_, valid) in zip(dispatches, chunks, strict=True):
        # All replicas see the same examples; those that only fill up the last batch do not count.
        indices = np.repeat(indices, replicas, axis=1)
        valid = np.repeat(share.of(valid[None]), replicas, axis=1)
        batches = programs.placement.join_processes(data, indices, valid)
        sums = program((programs.values, variables), *batches, *programs.constants)
        parts.append(jax.device_get(sums))
    # On the host, in float64, so that large splits lose no digits.
    whole = jax.tree.map(merge_dispatches, *parts, is_leaf=is_per_example)
    return [jax.tree.map(lambda x, i=i: x[i], whole) for i in range(replicas)]
