"""MLA, ReconBoost and UME: unimodal losses that take turns, or train alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.balance import Balancer
from mmjax.modalities.imbalance.balancers.weights_by_name import find_losses
from mmjax.types import Params


class AlternationState(NamedTuple):
    """State of a schedule: the number of completed steps, and the schedule's weights.

    Attributes:
      step: number of completed steps.
      turns: weights of the losses in every turn [turns t].
      lengths: number of steps of every turn.
    """

    step: Int[Array, ""]
    turns: Float[Array, "n t"]
    lengths: Int[Array, " n"]


def _choose_turn(state: AlternationState) -> Int[Array, ""]:
    """Returns the index of the turn that the step belongs to."""
    # As many turns as have ended in this cycle come before the current one.
    ends = jnp.cumsum(state.lengths)
    return (state.step % ends[-1] >= ends).sum()


def _list_turns(
    method: str, unimodal: Mapping[str, str], losses: Sequence[str]
) -> Float[Array, "m t"]:
    """Returns one row of weights per modality: 1 for its losses, 0 for all others."""
    find_losses(method, unimodal, losses)  # refuses unknown names
    turns = sorted(set(unimodal.values()))
    return jnp.array([[float(unimodal.get(name) == m) for name in losses] for m in turns])


def _check_schedule(method: str, unimodal: Mapping[str, str], **steps: int) -> None:
    """Raises ValueError for a schedule without losses, or with too few steps."""
    if not unimodal:
        raise ValueError(f"{method} needs {{name of a unimodal loss: modality}}; it is empty.")
    for name, value in steps.items():
        smallest = 0 if name == "rectify" else 1
        if value < smallest:
            raise ValueError(f"{method}: {name} is {value}; it must be at least {smallest}.")


def mla(unimodal: Mapping[str, str], *, steps: int = 1, ridge: float = 0.1) -> Balancer:
    """Trains one modality at a time, orthogonally to what the head got from the one before.

    The turns follow the modalities' names. In a turn only the losses of its modality have weight 1;
    the tasks' own losses have weight 0. The gradient of the first layer of every head, W [d e], is
    multiplied by P = I - r rᵀ / (ridge + rᵀ r), where r [d] is the mean input of that head from the
    modality before: the head must not unlearn it. Use `UnimodalLoss(..., own_head=False)`, a fusion
    that gives every modality the same place, such as `Mean`, and `HardSharing()` without layers; at
    test, `average_by_entropy` weighs the modalities' predictions.

    The paper accumulates P over all steps by recursive least squares. Accumulated so, P shrinks to
    0 in every direction that inputs have, and the head stops to learn; here it starts anew in each
    step.

    Args:
      unimodal: {name of a unimodal loss: its modality}.
      steps: number of steps of a turn.
      ridge: regularization of the projection, positive.

    Source: Zhang et al., "Multimodal representation learning by alternating unimodal adaptation",
    CVPR 2024 (arXiv:2311.10707).

    Raises:
      ValueError: if the dictionary is empty, or `steps` or `ridge` is not positive.

    Example:
      >>> mla({"only_a": "a", "only_b": "b"}).scores
      'unimodal'
    """
    _check_schedule("mla", unimodal, steps=steps)
    if not ridge > 0:
        raise ValueError(f"mla: ridge is {ridge}; it must be positive.")
    learning = sorted(set(unimodal.values()))

    def init(
        tasks: Sequence[str], shared: Params, *, modalities: Sequence[str]
    ) -> AlternationState:
        for m in learning:
            if m not in modalities:
                raise ValueError(f"mla names the modality {m!r}; the model has {modalities}.")
        turns = _list_turns("mla", unimodal, tasks)
        return AlternationState(jnp.zeros((), jnp.int32), turns, jnp.full(len(turns), steps))

    def update(losses, pullback, state, *, key, labeled):
        turn = _choose_turn(state)
        weights = state.turns[turn]
        gradient = pullback(weights)
        if len(learning) > 1:
            # Scores are in the order of all modalities, turns only of those that learn.
            before = [pullback.scores.modalities.index(m) for m in learning]
            row = jnp.array(before)[(turn - 1) % len(learning)]
            inputs = {t: x[row] for t, x in pullback.scores.average_inputs().items()}
            gradient = project_head_gradients(gradient, inputs, ridge)
        return gradient, weights, state._replace(step=state.step + 1)

    return Balancer(init, update, scores="unimodal")


def project_head_gradients(
    gradient: Params, inputs: Mapping[str, Float[Array, " d"]], ridge: float
) -> Params:
    """Removes the direction of a mean input from the gradient of each head's first layer.

    Args:
      gradient: of all parameters.
      inputs: {task: mean input [d] of its head}; heads with other inputs are left alone.
      ridge: added to the square of the input's length.

    Example:
      >>> gradient = {"heads_y": {"output": {"kernel": jnp.ones((2, 1))}}}
      >>> projected = project_head_gradients(gradient, {"y": jnp.array([1.0, 0.0])}, 1e-9)
      >>> projected["heads_y"]["output"]["kernel"].ravel().tolist()
      [0.0, 1.0]
    """
    projected = dict(gradient)
    for task, r in inputs.items():
        head = dict(gradient.get(f"heads_{task}", {}))
        layer = "hidden_0" if "hidden_0" in head else "output"
        kernel = head.get(layer, {}).get("kernel")
        if kernel is None or kernel.shape[0] != len(r):
            continue
        new = kernel - r[:, None] * (r[None] @ kernel) / (ridge + r @ r)
        projected[f"heads_{task}"] = head | {layer: {**head[layer], "kernel": new}}
    return projected


def average_by_entropy(logits: Float[Array, "m b c"], present: Array) -> Float[Array, "b c"]:
    """Averages the modalities' class probabilities, the more certain ones with more weight.

    The weights are softmax(-entropy) over the modalities that an example has. The result is the
    logarithm of the mean, which can be used as logits.

    Args:
      logits: the prediction from each modality alone; see
        `mmjax.modalities.subsets.predict_from_subsets`.
      present: Bool[m b].

    Source: Zhang et al., CVPR 2024, section 3.3.

    Example:
      >>> logits = jnp.array([[[9.0, -9.0]], [[0.0, 0.0]]])
      >>> fused = average_by_entropy(logits, jnp.array([[True], [False]]))
      >>> bool(jnp.exp(fused)[0, 0] > 0.99)
      True
    """
    log_p = jax.nn.log_softmax(logits, axis=-1)
    entropy = -(jnp.exp(log_p) * log_p).sum(axis=-1)
    lowest = jnp.finfo(log_p.dtype).min  # finite: -inf only would make NaN
    weights = jax.nn.softmax(jnp.where(present, -entropy, lowest), axis=0)
    log_w = jnp.log(jnp.where(present, weights, jnp.finfo(log_p.dtype).tiny))
    return jax.nn.logsumexp(log_p + log_w[..., None], axis=0)


def reconboost(unimodal: Mapping[str, str], *, steps: int = 1, rectify: int = 1) -> Balancer:
    """Lets the modalities take turns, each followed by steps on the tasks' own losses.

    In a modality's turn of `steps` steps only its losses have weight 1. Then all other losses have
    weight 1 for `rectify` steps: in the paper the global rectification, by the ensemble's loss.

    Args:
      unimodal: {name of a `ResidualBoosting` loss: its modality}.
      steps: number of steps of a modality's turn; in the paper, four epochs.
      rectify: number of steps of the rectification, 0 for none.

    Source: Hua et al., ICML 2024 (arXiv:2405.09321).

    Raises:
      ValueError: if the dictionary is empty, `steps` is below 1 or `rectify` below 0.

    Example:
      >>> from mmjax.balance import to_aggregator
      >>> balancer = reconboost({"boost_a": "a", "boost_b": "b"}, steps=1, rectify=1)
      >>> state = balancer.init(("boost_a", "boost_b", "digit"), {})
      >>> state.turns.astype(int).tolist()
      [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1]]
    """
    _check_schedule("reconboost", unimodal, steps=steps, rectify=rectify)

    def init(tasks: Sequence[str], shared: Params) -> AlternationState:
        turns = _list_turns("reconboost", unimodal, tasks)
        others = 1 - turns.max(axis=0)
        every = jnp.stack([jnp.stack([turn, others]) for turn in turns])
        lengths = jnp.tile(jnp.array([steps, rectify]), len(turns))
        return AlternationState(jnp.zeros((), jnp.int32), every.reshape(-1, len(tasks)), lengths)

    def update(losses, pullback, state, *, key, labeled):
        weights = state.turns[_choose_turn(state)]
        return pullback(weights), weights, state._replace(step=state.step + 1)

    return Balancer(init, update)


def ume(unimodal: Sequence[str]) -> Balancer:
    """Trains the modalities without each other: only the unimodal losses have weight, 1 each.

    With `Late` fusion and `UnimodalLoss(..., own_head=False)`, the model is an ensemble of unimodal
    models: each branch learns alone, and the prediction is their mean.

    Args:
      unimodal: names of the unimodal losses.

    Source: Du et al., "On uni-modal feature learning in supervised multi-modal learning", ICML 2023
    (arXiv:2305.01233).

    Raises:
      ValueError: if `unimodal` is empty.

    Example:
      >>> balancer = ume(("only_a", "only_b"))
      >>> balancer.init(("digit", "only_a", "only_b"), {}).tolist()
      [0.0, 1.0, 1.0]
    """
    if not unimodal:
        raise ValueError("ume needs the names of the unimodal losses, but `unimodal` is empty.")

    def init(tasks: Sequence[str], shared: Params) -> Float[Array, " t"]:
        places = find_losses("ume", unimodal, tasks)
        return jnp.array([float(i in places) for i in range(len(tasks))])

    def update(losses, pullback, state, *, key, labeled):
        return pullback(state), state, state

    return Balancer(init, update)
