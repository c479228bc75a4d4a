"""The values that flow through mmjax: a batch, an encoded modality, a training state.

All are NamedTuples of arrays, so they are pytrees: they can be jitted, pmapped, scanned, vmapped
and saved without further ado.
"""

from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

Params = PyTree[Array | np.ndarray]
Optimizer = optax.GradientTransformation | optax.MultiSteps


class Batch(NamedTuple):
    """Examples as arrays with a leading batch axis `b`, keyed by the names of modalities and tasks.

    What is missing is marked, never left out: the array of an absent modality or label may hold
    anything, since `present` and `labeled` keep it from having any effect.

    Attributes:
      inputs: {modality: [b, ...]}; a sequence has time first, padded: [b, time, ...].
      present: {modality: Bool[b]}, whether the example has that modality.
      lengths: {modality: Int[b]}, true lengths, for modalities that are sequences only.
      targets: {task: [b, ...]}.
      labeled: {task: Bool[b]}, whether the example has a label for that task.
    """

    inputs: dict[str, Any]
    present: dict[str, Any]
    lengths: dict[str, Any]
    targets: dict[str, Any]
    labeled: dict[str, Any]

    @property
    def size(self) -> int:
        """How many examples there are, `b`."""
        return len(next(iter(self.present.values())))


class Tokens(NamedTuple):
    """What an encoder makes of one modality: `n` vectors an example; a vector is `n` = 1."""

    values: Float[Array, "b n d"]
    mask: Bool[Array, "b n"]


class Branches(NamedTuple):
    """One representation a modality, for fusions that act on predictions (see `fusion.Late`).

    Every branch gets heads of its own; their predictions are averaged with `weights`, which are 0
    for an absent modality and sum to 1 for every example.
    """

    values: dict[str, Float[Array, "b d"]]
    weights: dict[str, Float[Array, " b"]]


class Seen(NamedTuple):
    """What an auxiliary objective sees of one backbone: intermediate values of the model.

    Attributes:
      tokens: {modality: Tokens}, as the encoders make them; nothing stands in for the missing.
      fused: what the fusion makes of them: Float[b d], or `Branches`.
      features: {task: Float[b d]}, what the heads get.
      sown: {"fusion" or "sharing": {name: value}}, what these sow as "intermediates".
    """

    tokens: dict[str, Tokens]
    fused: Any
    features: dict[str, Any]
    sown: dict[str, dict[str, Any]]


class TrainState(NamedTuple):
    """All that a training step reads and writes.

    Attributes:
      step: number of updates made.
      params: the model's parameters.
      opt_state: the optimizer's state.
      balancer_state: the balancer's state.
      key: the run's key. It never changes; a step folds its number in, so that a run resumed at
        step k draws what the uninterrupted run draws.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    balancer_state: Any
    key: Key[Array, ""]
