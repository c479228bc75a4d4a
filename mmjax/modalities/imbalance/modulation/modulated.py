"""Modulation of the encoders' gradients, modality by modality, around any balancer."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mmjax.balance import Balancer
from mmjax.balance.pullback import ModalityScores
from mmjax.balance.wrapping import check_scores, init_balancer, wrap_balancer
from mmjax.types import Params

_ENCODERS = ("encoders_", "own_encoders_")


class Modulation(NamedTuple):
    """A rule for the factors of the encoders' gradients, as pure functions.

    Attributes:
      scores: how it scores the modalities; see `mmjax.balance.Balancer`.
      init: modalities -> state.
      choose_factors: (scores, state) -> (factors [m], state).
      noise: whether Gaussian noise with the standard deviation of each gradient array's own
        entries, before its modulation, is added to it.
    """

    scores: Literal["unimodal", "shapley"]
    init: Callable[[Sequence[str]], Any]
    choose_factors: Callable[[ModalityScores, Any], tuple[Float[Array, " m"], Any]]
    noise: bool = False


class ModulatedState(NamedTuple):
    """State of `modulated`.

    Attributes:
      balancer: that of the balancer.
      method: that of the modulation.
      step: number of completed steps.
      factors: the last step's factors of the encoders' gradients.
    """

    balancer: Any
    method: Any
    step: Int[Array, ""]
    factors: Float[Array, " m"]


def modulated(balancer: Balancer, method: Modulation, *, steps: int | None = None) -> Balancer:
    """Multiplies each encoder's gradient, as the balancer makes it, by its modality's factor.

    The balancer weighs the tasks first; then `method` chooses one factor per modality from the
    modalities' scores in the same pass, and multiplies the gradients of all parameters of that
    modality's encoder. Fusion, sharing and heads keep their gradients. A modality that no labeled
    example of the batch has keeps its gradient, too.

    Under an optimizer that divides by the size of the gradient, such as Adam, a factor that stays
    the same has no effect; only its changes have.

    Args:
      balancer: any balancer.
      method: `ogm_ge`, `agm` or `cggm`, or a rule of your own.
      steps: number of first steps that are modulated; None for all. The published experiments
        modulate the first half of the training.

    Raises:
      ValueError: if the balancer scores the modalities in another way, or `steps` is negative.

    Example:
      >>> from mmjax.balance import equal
      >>> from mmjax.modalities.imbalance import ogm_ge
      >>> balancer = modulated(equal(), ogm_ge(alpha=0.5))
      >>> balancer.scores
      'unimodal'
    """
    check_scores("modulated", balancer, method.scores)
    if steps is not None and steps < 0:
        raise ValueError(f"modulated: steps is {steps}; it must be 0 or more, or None.")

    def init(
        tasks: Sequence[str], shared: Params, *, modalities: Sequence[str], **options: Any
    ) -> ModulatedState:
        inner = init_balancer(balancer, tasks, shared, modalities=modalities, **options)
        ones = jnp.ones(len(modalities))
        return ModulatedState(inner, method.init(modalities), jnp.zeros((), jnp.int32), ones)

    def update(losses, pullback, state, *, key, labeled):
        balancer_key, noise_key = jax.random.split(key)
        gradient, weights, inner = balancer.update(
            losses, pullback, state.balancer, key=balancer_key, labeled=labeled
        )
        factors, method_state = method.choose_factors(pullback.scores, state.method)
        active = jnp.asarray(steps is None or state.step < steps)
        factors = jnp.where(active, factors, 1.0)
        by_modality = dict(zip(pullback.scores.modalities, factors, strict=True))
        noise = jnp.where(active, 1.0, 0.0) if method.noise else None
        gradient = scale_encoder_gradients(gradient, by_modality, noise=noise, key=noise_key)
        return gradient, weights, ModulatedState(inner, method_state, state.step + 1, factors)

    return wrap_balancer(balancer, init=init, update=update, scores=method.scores)


def find_encoder_modality(path: tuple[Any, ...], modalities: Sequence[str]) -> str | None:
    """Returns the modality whose encoder a parameter belongs to; None for other parameters.

    Example:
      >>> key = jax.tree_util.DictKey
      >>> find_encoder_modality((key("encoders_image"), key("kernel")), ["image", "text"])
      'image'
    """
    part = str(path[0].key)
    return next((m for m in modalities for prefix in _ENCODERS if part == prefix + m), None)


def select_encoders(params: Params, modalities: Sequence[str]) -> Params:
    """Returns the parameters of the modalities' encoders, with None for the others.

    Example:
      >>> params = {"encoders_a": {"w": jnp.ones(2)}, "fusion": {"w": jnp.ones(2)}}
      >>> selected = select_encoders(params, ["a"])
      >>> selected["encoders_a"]["w"].tolist(), selected["fusion"]["w"]
      ([1.0, 1.0], None)
    """
    return jax.tree.map_with_path(
        lambda path, x: None if find_encoder_modality(path, modalities) is None else x, params
    )


def scale_encoder_gradients(
    gradient: Params,
    factors: dict[str, Float[Array, ""]],
    *,
    noise: Float[Array, ""] | None = None,
    key: Key[Array, ""] | None = None,
) -> Params:
    """Multiplies the gradients of each modality's encoder by its factor, and may add noise.

    Args:
      gradient: of all parameters.
      factors: {modality: factor}.
      noise: standard deviation of the Gaussian noise, as a multiple of that of the entries of each
        array before its modulation; None for none. The modalities' encoders get it, no others.
      key: random key of the noise.

    Example:
      >>> gradient = {"encoders_a": {"w": jnp.ones(2)}, "fusion": {"w": jnp.ones(2)}}
      >>> scaled = scale_encoder_gradients(gradient, {"a": jnp.array(0.5)})
      >>> scaled["encoders_a"]["w"].tolist(), scaled["fusion"]["w"].tolist()
      ([0.5, 0.5], [1.0, 1.0])
    """
    leaves, treedef = jax.tree.flatten_with_path(gradient)
    scaled = []
    for i, (path, g) in enumerate(leaves):
        modality = find_encoder_modality(path, list(factors))
        if modality is None:
            scaled.append(g)
            continue
        new = g * factors[modality].astype(g.dtype)
        if noise is not None and key is not None:
            # A key per array, so that arrays of equal shape get different noise.
            draws = jax.random.normal(jax.random.fold_in(key, i), g.shape, g.dtype)
            new += (noise * jnp.std(g)).astype(g.dtype) * draws
        scaled.append(new)
    return jax.tree.unflatten(treedef, scaled)
