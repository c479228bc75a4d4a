"""Results of a unit whose seeds were trained side by side, in one program or in several."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmjax.train.checkpoint import Checkpoints
from mmjax.train.fit_result import FitResult
from mmjax.train.run_arms import ArmResult


class TrainedReplica(NamedTuple):
    """Trained replica: the results of its program, and its position there."""

    fitted: FitResult
    position: int


def save_states(directory: Path, pieces: Sequence[TrainedReplica]) -> None:
    """Saves a checkpoint of replicas in the layout of a run's: stacked, on one device."""
    states, steps = [], []
    for fitted, position in pieces:
        state = jax.tree.map(lambda x, i=position: x[i], fitted.state)
        states.append(jax.device_put(state, jax.devices()[0]))
        steps.append(fitted.state.steps_done)
    checkpoints = Checkpoints(directory)
    checkpoints.save(max(steps), jax.tree.map(lambda *x: jnp.stack(x), *states))
    checkpoints.close()


def merge_results(parts: Sequence[ArmResult]) -> ArmResult:
    """Merges the results of a unit's seeds.

    Seconds and throughput add up over the seeds; other costs are averaged.
    """
    seeds = dict(itertools.chain(*(part["seeds"].items() for part in parts)))
    costs = {}
    for name in parts[0]["cost"]:
        costs[name] = sum(part["cost"][name] for part in parts)
        if name not in ("seconds", "examples_per_second"):
            costs[name] /= len(parts)
    return {**parts[0], "seeds": seeds, "cost": costs}
