"""The monitored metric: it chooses the best parameters, and stops replicas that do not improve."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from mmjax.experiment import Experiment
from mmjax.train.evaluation import is_higher_better
from mmjax.train.steps.state import LoopState, update_best_params


class Monitor(NamedTuple):
    """The monitored metric of an experiment.

    Attributes:
      metric: name of the metric, such as "digit/accuracy".
      maximize: whether higher values are better.
      patience: validations without improvement after which a replica stops; None: it never does.
    """

    metric: str
    maximize: bool
    patience: int | None

    @property
    def worst_value(self) -> float:
        """Value that any other one is better than."""
        return -math.inf if self.maximize else math.inf

    def has_stopped(self, state: LoopState) -> Bool[np.ndarray, " s"]:
        """Returns which replicas have run out of patience."""
        patience = math.inf if self.patience is None else self.patience
        return np.asarray(state.waited) >= patience

    def select_best(
        self,
        state: LoopState,
        validation: Sequence[Mapping[str, float]],
        failed: Collection[int] = (),
    ) -> LoopState:
        """Updates the best parameters of replicas that improved, unless they have stopped.

        `validation` has the metrics of each replica. Those in `failed`, which are no longer finite,
        keep their best parameters.

        Raises:
          ValueError: if the monitored metric of a replica that has not failed is NaN.
        """
        values = [metrics[self.metric] for metrics in validation]
        if any(math.isnan(v) and i not in failed for i, v in enumerate(values)):
            raise ValueError(
                f"monitor {self.metric!r} is NaN on the validation split, so no parameters can be "
                "chosen by it; give the split labels for every task that it covers, or monitor "
                "another metric."
            )
        value = jnp.array(values, jnp.float32)
        better = value > state.best_value if self.maximize else value < state.best_value
        return update_best_params(state, value, better & ~self.has_stopped(state))


def make_monitor(experiment: Experiment) -> Monitor:
    """Makes the monitor of an experiment.

    Raises:
      ValueError: if its model has no such metric.
    """
    name = experiment.monitor
    return Monitor(name, is_higher_better(experiment.model, name), experiment.patience)
