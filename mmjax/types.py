"""The types of mmjax's data flow: a batch, an encoded modality, a training state.

All are NamedTuples of arrays, hence pytrees: they can be passed through `jit`, `pmap`, `scan` and
`vmap`, and be saved.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

Params = PyTree[Array | np.ndarray]
Variables = dict[str, Any]  # Flax's collections by name: "params" and others
Shape = tuple[Any, ...]  # of an array; the batch size is symbolic while a model is exported
Optimizer = optax.GradientTransformation | optax.MultiSteps


class Batch(NamedTuple):
    """Examples as arrays with a leading batch axis `b`, keyed by the names of modalities and tasks.

    Missing values are marked, not left out: the array of an absent modality or label may hold
    anything, since `present` and `labeled` exclude it from every computation.

    Attributes:
      inputs: {modality: [b, ...]}; a sequence has time first, padded: [b, time, ...].
      present: {modality: Bool[b]}, whether each example has that modality.
      lengths: {modality: Int[b]}, true lengths; only for modalities that are sequences.
      targets: {task: [b, ...]}.
      labeled: {task: Bool[b]}, whether each example has a label for that task.
      weights: {task: Float[b]}, how much each label counts in the task's training loss; only for
        tasks whose labels do not all count the same.

    Example:
      >>> batch = Batch(
      ...     inputs={"sound": np.ones((2, 5))},
      ...     present={"sound": np.array([True, False])},
      ...     lengths={},
      ...     targets={"digit": np.array([3, 7])},
      ...     labeled={"digit": np.array([True, True])},
      ... )
      >>> batch.size
      2
    """

    inputs: dict[str, Any]
    present: dict[str, Any]
    lengths: dict[str, Any]
    targets: dict[str, Any]
    labeled: dict[str, Any]
    weights: Mapping[str, Any] = {}

    @property
    def size(self) -> int:
        """Number of examples, `b`."""
        return len(next(iter(self.present.values())))


class Tokens(NamedTuple):
    """Output of an encoder for one modality: `n` vectors per example, one or more."""

    values: Float[Array, "b n d"]
    mask: Bool[Array, "b n"]


class FeatureDropout(NamedTuple):
    """The examples that show a modality to the fusion, and the dropped share of its features.

    Attributes:
      shown: the examples that show the modality.
      rates: share of the features that an example drops, from 0 to 1.
      keys: random keys, which decide what is dropped.
    """

    shown: Bool[Array, " b"]
    rates: Float[Array, " b"]
    keys: Key[Array, " b"]


Visible = Bool[Array, "#b"] | FeatureDropout


class Branches(NamedTuple):
    """One representation per modality, for fusions of predictions (see `mmjax.fusion.Late`).

    Every branch has heads of its own. Their predictions are averaged with `weights`, which are 0
    for an absent modality and sum to 1 for every example; a head with a method
    `combine(predictions, weights)` combines them by a rule of its own.
    """

    values: dict[str, Float[Array, "b d"]]
    weights: dict[str, Float[Array, " b"]]


class BranchOutput(NamedTuple):
    """What the head of one branch predicts, and the task's loss of that prediction alone.

    Both are of no meaning in examples whose weight is 0, which lack the modality.
    """

    prediction: Float[Array, "b ..."]
    loss: Float[Array, " b"]
    weight: Float[Array, " b"]


class Intermediates(NamedTuple):
    """Intermediate values of one backbone of a model, which auxiliary objectives get.

    Attributes:
      tokens: {modality: Tokens}, outputs of the encoders; missing modalities are masked.
      fused: output of the fusion: Float[b d], or `Branches`.
      features: {task: Float[b d]}, inputs of the heads.
      sown: {"fusion" or "sharing": {name: value}}, values that they sow as "intermediates".
      subsets: {subset of modalities, such as "image+text": {task: prediction from it alone}}, for
        the objectives that request subsets; before the heads are called, the heads' inputs.
      scored: the same, as at test, for balancers that request scores.
      branches: {task: {branch: BranchOutput}} under late fusion, only for objectives whose
        attribute `needs_branches` is True.
    """

    tokens: dict[str, Tokens]
    fused: Any
    features: dict[str, Any]
    sown: dict[str, dict[str, Any]]
    subsets: Mapping[str, Mapping[str, Any]] = {}
    scored: Mapping[str, Mapping[str, Any]] = {}
    branches: Mapping[str, dict[str, BranchOutput]] = {}


Seen = Intermediates  # former name, kept for one release


class TrainState(NamedTuple):
    """State of training, which a step reads and writes.

    Attributes:
      step: number of completed updates.
      params: the model's parameters.
      variables: the model's other variables {collection: tree}, such as "batch_stats"; {} if it
        has none.
      opt_state: the optimizer's state.
      balancer_state: the balancer's state.
      key: random key of the run. It never changes; a step folds its number in, so that a run that
        is resumed at step k has the same random draws as an uninterrupted one.
      averages: averages of the variables, as `mmjax.train.steps.averages` keeps them; None if
        there are none.
    """

    step: Int[Array, ""]
    params: Params
    variables: Variables
    opt_state: Any
    balancer_state: Any
    key: Key[Array, ""]
    averages: Any = None

    @property
    def all_variables(self) -> Variables:
        """Parameters and other variables, as `Model.apply` takes them."""
        return {"params": self.params, **self.variables}
