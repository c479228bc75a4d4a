"""Detection of replicas that diverge: these fail, and the replicas of other arms continue."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mmjax.train.checkpoint import Checkpoints
from mmjax.train.programs import Programs
from mmjax.train.steps.forward import get_loss_names
from mmjax.train.steps.state import LoopState
from mmjax.types import Variables

MetricTotals = Mapping[str, tuple[np.ndarray, np.ndarray]]
_FIX = (
    "Lower the learning rate, clip the gradients (optax.clip_by_global_norm), or look for bad "
    "values in the data."
)


class NonFiniteError(FloatingPointError):
    """A loss, gradient or parameter became NaN or infinite."""


class ReplicaHealth:
    """The replicas of a program, with those that failed.

    Args:
      programs: their programs.
      homes: directory of each replica's log; replicas with the same home fail together.
    """

    def __init__(self, programs: Programs, homes: Sequence[Path]) -> None:
        self.programs, self.homes = programs, tuple(homes)
        self.failed: dict[int, NonFiniteError] = {}

    def healthy(self) -> list[int]:
        """Returns the replicas that did not fail."""
        return [i for i in range(len(self.homes)) if i not in self.failed]

    def check_metrics(self, metrics: MetricTotals, start: int, checkpoints: Checkpoints) -> None:
        """Fails the replicas whose losses, gradients or parameters are no longer finite.

        Raises:
          NonFiniteError: if no replica is left; it names the step, the task, the seed, the last
            good checkpoint, and the fix.
        """
        losses = get_loss_names(self.programs.experiment.model)
        names = [f"loss/{name}" for name in losses] + ["loss", "gradient_norm", "parameter_norm"]
        # [names, replicas, steps]
        bad = np.stack([~np.isfinite(metrics[name][0]) for name in names])
        if not bad.any():
            return
        # Of several bad steps or metrics the first names the cause: the others follow from it.
        first = {i: int(bad[:, i].any(0).argmax()) for i in self.healthy() if bad[:, i].any()}
        for i, step in sorted(first.items(), key=lambda item: item[1]):
            name = int(np.flatnonzero(bad[:, i, step])[0])
            what = f"loss {losses[name]!r}" if name < len(losses) else names[name].replace("_", " ")
            value = metrics[names[name]][0][i, step]
            self._fail(i, f"The {what} is {value} at step {start + step}", checkpoints)

    def check_state(self, state: LoopState, checkpoints: Checkpoints) -> None:
        """Fails the replicas that diverged before the checkpoint that training resumes from.

        Raises:
          NonFiniteError: if no replica is left.
        """
        for i in np.flatnonzero(~np.asarray(_are_finite(state.train.all_variables))).tolist():
            what = f"A parameter or statistic is not finite at step {state.steps_done}"
            self._fail(i, what, checkpoints)

    def _fail(self, replica: int, what: str, checkpoints: Checkpoints) -> None:
        """Records that a replica failed, and with it all others of its home.

        Raises:
          NonFiniteError: if no replica is left.
        """
        error = NonFiniteError(
            f"{what} (seed {self.programs.seeds[replica]}). The last good checkpoint is "
            f"{checkpoints.newest() or 'none yet'}. {_FIX}"
        )
        for i, home in enumerate(self.homes):
            if home == self.homes[replica]:
                self.failed.setdefault(i, error)  # the first cause is the one to report
        if not self.healthy():
            raise next(iter(self.failed.values()))


@jax.jit
def _are_finite(variables: Variables) -> Bool[Array, " s"]:
    """Returns whether all variables of each replica are finite."""
    leaves = [jnp.isfinite(x).all(range(1, x.ndim)) for x in jax.tree.leaves(variables)]
    return jnp.stack(leaves).all(0)
