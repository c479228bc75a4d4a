"""Nash-MTL and FairGrad: the gradients bargain for the direction."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, State, Wrt, from_gram
from mmjax.balance.solvers.convex import power_equation, unit_gram
from mmjax.parameters import merge
from mmjax.types import Params


def nash(
    every: int = 1, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """The direction of the greatest product of the tasks' gains: gram w = 1 / w, w > 0.

    It does not change with the scale of any loss, and its square norm is the number of tasks,
    whatever the gradients' norms: its length says nothing of how far there is to go. Where the
    gradients have a mean of zero there is no bargain; the direction then fades to rounding errors.

    Args:
      every: weights are made anew every so many steps, and kept between; the steps between cost
        no more than equal weights, except under vmap over seeds, where nothing can be left out.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`. The paper bargains for the shared parameters; the authors'
        code weighs the losses, so that heads are weighted too.
      rescale: see `from_gram`.

    Source: Navon et al., ICML 2022 (arXiv:2202.01017). The authors' code solves for the Gramian
    divided by its norm, only nearly, by a sequence of convex problems, and clips the gradient of
    the shared parameters to norm 1, which `optax.clip_by_global_norm(1.0)` comes near to.

    Raises:
      ValueError: if `every` is less than 1.
    """
    if every < 1:
        raise ValueError(f"nash: weights are made every {every} steps; that must be 1 or more.")
    always = from_gram(nash_weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)
    return always if every == 1 else occasionally(always, every, weigh_heads)


def fairgrad(
    alpha: float = 2.0, *, wrt: Wrt = "params", weigh_heads: bool = False, rescale: bool = False
) -> Balancer:
    """The direction that is fair in the sense of alpha: gram w = w^(-1 / alpha), w > 0.

    Where the gradients depend on each other and their norms differ by many powers of ten, its
    solver may stall (see `power_equation`): of 200 draws of 2 to 8 dependent gradients with norms
    a factor of up to 10^12 apart, one did with alpha = 2. The direction is finite then, and its
    gains far from fair; other draws with such norms, and all with norms alike, were solved.

    Args:
      alpha: 1 is `nash`; towards 0 the sum of the gains counts, for large values the least gain.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Ban, Ji, ICML 2024 (arXiv:2402.15638), whose code solves the equation by least squares,
    or by gradient descent, and has 2 for alpha in most experiments.

    Raises:
      ValueError: if alpha is not positive.
    """
    if not alpha > 0:
        raise ValueError(f"fairgrad: alpha is {alpha}; it must be positive.")

    def weights(gram, *, key, labeled):
        return fairgrad_weights(gram, key=key, labeled=labeled, alpha=alpha)

    return from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)


def nash_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"]
) -> Float[Array, " t"]:
    """The w > 0 with gram w = 1 / w; 0 where a gradient is zero, for nothing can be won there."""
    return fairgrad_weights(gram, key=key, labeled=labeled, alpha=1.0)


def fairgrad_weights(
    gram: Float[Array, "t t"], *, key: Key[Array, ""], labeled: Bool[Array, " t"], alpha: float
) -> Float[Array, " t"]:
    """The w > 0 with gram w = w^(-1 / alpha); 0 where a gradient is zero."""
    power = 1 / alpha
    cosines, norms, nonzero = unit_gram(gram)
    active = labeled & nonzero
    # With w = x / norms, the equation of unit gradients is C x = norms^(power - 1) x^-power.
    log_p = (power - 1) * jnp.where(active, jnp.log(norms), 0.0)
    middle = log_p.sum() / jnp.maximum(active.sum(), 1)
    x = power_equation(cosines, jnp.where(active, log_p - middle, 0.0), power)
    return jnp.where(active, x * jnp.exp(middle / (1 + power)) / norms, 0.0)


class OccasionalState(NamedTuple):
    """State of `occasionally`: steps, the present weights, and the balancer's own state."""

    steps: Int[Array, ""]
    weights: Float[Array, " t"]
    inner: State


def occasionally(balancer: Balancer, every: int, weigh_heads: bool) -> Balancer:
    """The balancer at every `every`-th step, and its last weights between.

    A task without labels when the weights are made keeps those it had, at first 1.
    """

    def init(tasks: Sequence[str], params: Params) -> OccasionalState:
        ones = jnp.ones(len(tasks), jnp.float32)
        return OccasionalState(jnp.zeros((), jnp.int32), ones, balancer.init(tasks, params))

    def update(losses, pullback, state, *, key, labeled):
        def fresh():
            gradient, inner, w = balancer.update(
                losses, pullback, state.inner, key=key, labeled=labeled
            )
            return gradient, inner, jnp.where(labeled, w, state.weights)

        def kept():
            w = jnp.where(labeled, state.weights, 0.0)
            own = pullback.own(w if weigh_heads else jnp.ones_like(w))
            return merge(pullback.shared(w), own), state.inner, state.weights

        gradient, inner, w = jax.lax.cond(state.steps % every == 0, fresh, kept)
        new = OccasionalState(state.steps + 1, w, inner)
        return gradient, new, jnp.where(labeled, w, 0.0)

    return Balancer(init, update)
