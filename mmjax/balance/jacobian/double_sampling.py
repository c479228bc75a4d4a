"""SDMGrad and MoDo: weights that descend along unbiased estimates from two independent samples.

With weights w on the simplex, the gradient of |J' w|^2 / 2 is J J' w. If both J come from one
sample, the noise of the gradients does not cancel in the mean; with J_1 J_2' of independent samples
it does. That matrix is not symmetric, nor are its eigenvalues 0 or more.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mmjax.balance.base import Balancer, rescaled
from mmjax.balance.jacobian.moco import on_labeled
from mmjax.balance.solvers.convex import project_simplex, uniform
from mmjax.kernels.linear_algebra import dot
from mmjax.parameters import merge
from mmjax.types import Params


def sdmgrad(
    pull: float = 0.3,
    learning_rate: float = 1.0,
    momentum: float = 0.5,
    steps: int = 20,
    *,
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """The least point of the gradients' hull, shifted by a multiple of the mean gradient.

    In each step the weights w on the simplex take projected gradient steps for
    |g_w + pull g_0|^2 / 2, g_0 the mean gradient, from where they stood; the direction is
    g_w + pull g_0. Each half of the batch is one sample, and the direction comes from the whole;
    the paper draws a third sample for it, and its code has one sample for all.

    Args:
      pull: the weight of the mean gradient; 0 is MGDA, large values follow the mean.
      learning_rate: step size for the weights, for a matrix of Frobenius norm 1, to which it is
        scaled; steps of 2 and more need not converge. The code has 5, or 10, for gradients of a
        mean norm of 1, where the weights jump about and rounding errors decide.
      momentum: of these steps; the code's, while the paper has none.
      steps: how many.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`. The code divides by 1 + pull, so that weights sum to 1.

    Source: Xiao, Ban, Ji, NeurIPS 2023 (arXiv:2305.18409), algorithm 1.
    """

    def weights(gram, w, labeled):
        mean = uniform(labeled)
        size = jnp.max(jnp.abs(gram))
        gram = gram / jnp.where(size > 0, size, 1.0)
        gram = gram / jnp.maximum(jnp.sqrt((gram**2).sum()), 1.0)
        toward_mean = pull * dot(gram, mean)

        def step(_, carry):
            w, velocity = carry
            velocity = momentum * velocity + dot(gram, w) + toward_mean
            return project_simplex(w - learning_rate * velocity, labeled), velocity

        w = jax.lax.fori_loop(0, steps, step, (w, jnp.zeros_like(w)))[0]
        return w + pull * mean, w

    return double_sampling(weights, weigh_heads=weigh_heads, rescale=rescale)


def modo(
    learning_rate: float = 1e-3,
    regularization: float = 0.1,
    *,
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Weights w on the simplex that take one step a step: w - rate (J_1 J_2' w + reg w), projected.

    Each half of the batch is one sample, and the direction J' w comes from the whole, which is
    both, as in the paper; the authors' code has an option that draws a third sample for it.

    Args:
      learning_rate: step size for the weights.
      regularization: strength of the pull of the weights to each other.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Chen, Fernando, Ying, Chen, NeurIPS 2023, JMLR 2024 (arXiv:2305.20057), algorithm 2;
    the defaults are those of the authors' code, as it is in LibMTL.
    """

    def weights(gram, w, labeled):
        down = dot(gram, w) + regularization * w
        w = project_simplex(w - learning_rate * down, labeled)
        return w, w

    return double_sampling(weights, weigh_heads=weigh_heads, rescale=rescale)


def double_sampling(
    weights: Callable[..., tuple[Float[Array, " t"], Float[Array, " t"]]],
    *,
    weigh_heads: bool,
    rescale: bool,
) -> Balancer:
    """Lifts `weights(cross Gramian, w on the simplex, labeled) -> (weights, new w)` to a balancer.

    The state is w, at first 1/T. A task without labels keeps its own, and the others see what is
    theirs scaled to sum to 1. Where the pullback has no parts, as on a toy problem whose gradients
    are exact, both samples are those gradients.
    """

    def init(tasks: Sequence[str], params: Params) -> Float[Array, " t"]:
        return jnp.full(len(tasks), 1 / len(tasks), jnp.float32)

    def update(losses, pullback, state, *, key, labeled):
        one, two = pullback.parts or (pullback, pullback)
        gram = cross_gramian(one.jacobian(), two.jacobian())
        old, mass = on_labeled(state, labeled)
        w, new = weights(gram, old, labeled)
        w = jnp.where(labeled, w, 0.0)
        w = rescaled(w, labeled) if rescale else w
        own = pullback.task_specific(w if weigh_heads else jnp.ones_like(w))
        return merge(pullback.shared(w), own), w, jnp.where(labeled, mass * new, state)

    return Balancer(init, update, parts=2)


def cross_gramian(one: PyTree[Array], two: PyTree[Array]) -> Float[Array, "t t"]:
    """Inner products [t t] of one tree's rows with another's, as in `gramian`."""

    def of(a: Array, b: Array) -> Float[Array, "t t"]:
        a, b = (
            x.reshape(len(x), -1).astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (a, b)
        )
        return dot(a, b.T)

    return jax.tree.reduce(jnp.add, jax.tree.map(of, one, two))
