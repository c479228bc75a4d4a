"""Which lanes are still finite: one that is not fails, and the lanes of other arms go on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mmjax.train.checkpoint import Checkpoints
from mmjax.train.programs import LoopState, Programs
from mmjax.train.step import loss_names
from mmjax.types import Params

Totals = Mapping[str, tuple[np.ndarray, np.ndarray]]
MEND = (
    "Lower the learning rate, clip the gradients (optax.clip_by_global_norm), or look for bad "
    "values in the data."
)


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a parameter became NaN or infinite."""


class Lanes:
    """The lanes of a program, and which of them failed.

    Args:
      programs: their program.
      homes: where each lane's log goes; lanes of one home fail together.
    """

    def __init__(self, programs: Programs, homes: Sequence[Path]) -> None:
        self.programs, self.homes = programs, tuple(homes)
        self.failed: dict[int, NonFiniteError] = {}

    def sound(self) -> list[int]:
        """The lanes that did not fail."""
        return [i for i in range(len(self.homes)) if i not in self.failed]

    def check(self, metrics: Totals, start: int, checkpoints: Checkpoints) -> None:
        """Finds the lanes whose losses, gradients or parameters are no longer finite.

        Raises:
          NonFiniteError: no lane is left; it names the step, the task, the seed, the last good
            checkpoint, and the mend.
        """
        losses = loss_names(self.programs.experiment.model)
        names = [f"loss/{name}" for name in losses] + ["loss", "gradient_norm", "parameter_norm"]
        bad = np.stack([~np.isfinite(metrics[name][0]) for name in names])  # [names, lanes, steps]
        if not bad.any():
            return
        first = {i: int(bad[:, i].any(0).argmax()) for i in self.sound() if bad[:, i].any()}
        for i, step in sorted(first.items(), key=lambda item: item[1]):
            name = int(np.flatnonzero(bad[:, i, step])[0])
            what = f"loss {losses[name]!r}" if name < len(losses) else names[name].replace("_", " ")
            value = metrics[names[name]][0][i, step]
            self.fail(i, f"The {what} is {value} at step {start + step}", checkpoints)

    def check_state(self, state: LoopState, checkpoints: Checkpoints) -> None:
        """Finds lanes that failed before the checkpoint that training goes on from.

        Raises:
          NonFiniteError: no lane is left.
        """
        for i in np.flatnonzero(~np.asarray(finite(state.train.params))).tolist():
            what = f"A parameter is not finite at step {state.steps_done}"
            self.fail(i, what, checkpoints)

    def fail(self, lane: int, what: str, checkpoints: Checkpoints) -> None:
        """Notes that a lane failed, and so its home did.

        Raises:
          NonFiniteError: no lane is left.
        """
        error = NonFiniteError(
            f"{what} (seed {self.programs.seeds[lane]}). The last good checkpoint is "
            f"{checkpoints.newest() or 'none yet'}. {MEND}"
        )
        for i, home in enumerate(self.homes):
            if home == self.homes[lane]:
                self.failed.setdefault(i, error)
        if not self.sound():
            raise next(iter(self.failed.values()))


@jax.jit
def finite(params: Params) -> Bool[Array, " s"]:
    """Whether all parameters of each lane are finite."""
    leaves = [jnp.isfinite(x).all(range(1, x.ndim)) for x in jax.tree.leaves(params)]
    return jnp.stack(leaves).all(0)
