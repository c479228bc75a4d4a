"""Re-learning: encoders that fit the training split only forget some of what they learned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.balance import Balancer
from mmjax.balance.wrapping import init_balancer, wrap_balancer
from mmjax.modalities.imbalance.balancers.weights_by_name import find_losses
from mmjax.modalities.imbalance.modulation.modulated import (
    find_encoder_modality,
    select_encoders,
)
from mmjax.types import Params


class RelearnState(NamedTuple):
    """State of `relearn`.

    Attributes:
      balancer: that of the balancer.
      initial: the encoders' initial parameters; None for other parameters.
      impurities: which losses measure each modality [m t], as 0 and 1.
      validations: number of validations.
      strengths: how far each encoder goes back to its initial parameters now; 0 for most of the
        validations.
    """

    balancer: Any
    initial: Params
    impurities: Float[Array, "m t"]
    validations: Int[Array, ""]
    strengths: Float[Array, " m"]


def relearn(
    balancer: Balancer,
    impurities: Mapping[str, str],
    *,
    strength: float = 3.0,
    every: int = 1,
    times: int = 3,
) -> Balancer:
    """Resets encoders softly after some validations: θ becomes (1 - a) θ + a (its initial value).

    a_m = tanh(strength |P_train - P_validation|), where P is the purity of clusters of modality m's
    vectors, which `ClusterImpurity` measures: an encoder that separates the classes of the training
    split alone has memorized, and forgets more. Losses of a modality for several tasks are
    averaged; without labels on both splits its encoder stays.

    The best parameters are stored before a reset, which leaves the optimizer's state as it is, as
    in the authors' code, and also other variables and averages of parameters.

    Args:
      balancer: any balancer.
      impurities: {name of a `ClusterImpurity` loss: its modality}.
      strength: of the resets, 3 in the authors' code.
      every: number of validations, `Experiment.eval_every` epochs apart, between two resets.
      times: number of resets in all.

    Source: Wei et al., "Diagnosing and re-learning for balanced multimodal learning", ECCV 2024
    (arXiv:2407.09705).

    Raises:
      ValueError: if the dictionary is empty, or a number is out of range.

    Example:
      >>> from mmjax.balance import equal
      >>> relearn(equal(), {"impurity_a": "a", "impurity_b": "b"}).params
      True
    """
    _check_settings(impurities, strength, every, times)
    names = sorted(set(impurities.values()))
    lifted = wrap_balancer(balancer)

    def init(tasks, shared, *, params, **options):
        find_losses("relearn", impurities, tasks)  # refuses unknown names
        inner = init_balancer(balancer, tasks, shared, params=params, **options)
        rows = jnp.array([[float(impurities.get(t) == m) for t in tasks] for m in names])
        initial, zero = select_encoders(params, names), jnp.zeros((), jnp.int32)
        return RelearnState(inner, initial, rows, zero, jnp.zeros(len(names)))

    def validate(state, train, validation):
        if lifted.validate is not None:
            state = lifted.validate(state, train, validation)
        count = state.validations + 1
        due = (count % every == 0) & (count <= every * times)
        reset = jnp.tanh(strength * compute_purity_gaps(state.impurities, train, validation))
        return state._replace(validations=count, strengths=jnp.where(due, reset, 0.0))

    def revise(state, params):
        if lifted.revise is not None:
            params = lifted.revise(state, params)
        strengths = dict(zip(names, state.strengths, strict=True))
        return mix_with_initial(params, state.initial, strengths)

    return lifted._replace(init=init, validate=validate, params=True, revise=revise)


def _check_settings(
    impurities: Mapping[str, str], strength: float | Array, every: int, times: int
) -> None:
    """Raises ValueError for settings of `relearn` that are out of range."""
    if not impurities:
        raise ValueError("relearn needs {name of a ClusterImpurity loss: modality}; it is empty.")
    if every < 1 or times < 0:
        raise ValueError(
            f"relearn: every is {every} and times {times}; they must be at least 1 and 0."
        )
    if not isinstance(strength, jax.Array) and strength < 0:
        raise ValueError(f"relearn: strength is {strength}; it must be 0 or more.")


def compute_purity_gaps(
    impurities: Float[Array, "m t"],
    train: Float[Array, " t"],
    validation: Float[Array, " t"],
) -> Float[Array, " m"]:
    """Returns each modality's mean |P_train - P_validation|; 0 without any.

    Args:
      impurities: which losses measure each modality.
      train: losses on the training split; NaN without labels.
      validation: losses on the validation split.

    Example:
      >>> rows, train = jnp.array([[1.0, 0.0, 1.0]]), jnp.array([0.25, 3.0, jnp.nan])
      >>> compute_purity_gaps(rows, train, jnp.array([0.75, 2.0, 0.5])).tolist()
      [0.5]
    """
    gaps = jnp.abs(train - validation)
    known = jnp.isfinite(gaps)
    counts = impurities @ known.astype(jnp.float32)
    return impurities @ jnp.where(known, gaps, 0.0) / jnp.maximum(counts, 1)


def mix_with_initial(
    params: Params, initial: Params, strengths: Mapping[str, Float[Array, ""]]
) -> Params:
    """Moves the parameters of each modality's encoder towards their initial values.

    Example:
      >>> params = {"encoders_a": {"w": jnp.array(4.0)}, "fusion": {"w": jnp.array(4.0)}}
      >>> initial = {"encoders_a": {"w": jnp.array(0.0)}, "fusion": {"w": None}}
      >>> mixed = mix_with_initial(params, initial, {"a": jnp.array(0.25)})
      >>> float(mixed["encoders_a"]["w"]), float(mixed["fusion"]["w"])
      (3.0, 4.0)
    """

    def mix(path: Any, present: Array, first: Array | None) -> Array:
        modality = find_encoder_modality(path, list(strengths))
        if modality is None or first is None:
            return present
        # With a strength of 0 the parameters stay the same bits.
        return present + (strengths[modality] * (first - present)).astype(present.dtype)

    return jax.tree.map_with_path(mix, params, initial)
