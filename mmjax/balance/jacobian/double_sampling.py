"""SDMGrad and MoDo: weights that descend along unbiased estimates from two independent samples.

MGDA minimizes |J^T w|^2 / 2 over w on the simplex, with the gradient J J^T w. If both J come from
one sample, the noise of J enters its expectation as a variance; the estimate J_1 J_2^T w from two
independent samples is unbiased. The cross Gramian J_1 J_2^T is not symmetric, and it can have
negative eigenvalues.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.balance.base import Balancer
from mmjax.balance.from_functions import rescale_weights
from mmjax.balance.jacobian.moco import normalize_over_labeled
from mmjax.balance.solvers.simplex import project_simplex, uniform_weights
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.parameters import merge_params
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
    """Minimizes |g_w + pull g_0|^2 / 2 over the simplex, where g_w = J^T w and g_0 is the mean.

    In each update the weights w take projected gradient steps, from those of the last update, along
    J_1 J_2^T (w + pull u) with u = 1/T; the direction is g_w + pull g_0. Each half of the batch is
    one sample, and the whole batch gives the direction. The paper draws a third sample for it; its
    code has one sample for everything.

    Args:
      pull: the weight of the mean gradient; 0 is MGDA, large values follow the mean.
      learning_rate: step size for the weights, for a matrix of Frobenius norm 1, to which it is
        scaled; steps of 2 and more need not converge. The code has 5, or 10, for gradients of a
        mean norm of 1, where the weights oscillate and rounding errors decide.
      momentum: of these steps, as in the code; the paper has none.
      steps: number of these steps per update.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`. The code divides by 1 + pull, so that weights sum to 1.

    Source: Xiao, Ban, Ji, NeurIPS 2023 (arXiv:2305.18409), algorithm 1.

    Example:
      With exact gradients and without the mean it is MGDA: weights proportional to 1 / |g_i|^2.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import sdmgrad
      >>> from mmjax.balance.pullback import pullback_from_jacobian
      >>> balancer = sdmgrad(pull=0.0)
      >>> gradient, weights, state = balancer.update(
      ...     jnp.ones(2),
      ...     pullback_from_jacobian({"x": jnp.array([[2.0, 0.0], [0.0, 1.0]])}, {"x": True}),
      ...     balancer.init(("a", "b"), {"x": jnp.zeros(2)}),
      ...     key=jax.random.key(0),
      ...     labeled=jnp.array([True, True]),
      ... )
      >>> print(np.asarray(weights).round(3))
      [0.2 0.8]
    """

    def weights(gram, w, labeled):
        mean = uniform_weights(labeled)
        gram = _scale_to_unit_norm(gram)
        # The gradient of the objective is J_1 J_2^T w + pull J_1 J_2^T u.
        mean_slope = pull * precise_dot(gram, mean)
        w = _descend_on_simplex(gram, mean_slope, w, labeled, learning_rate, momentum, steps)
        return w + pull * mean, w

    return _from_cross_gramian(weights, weigh_heads=weigh_heads, rescale=rescale)


def _descend_on_simplex(
    matrix: Float[Array, "t t"],
    offset: Float[Array, " t"],
    w: Float[Array, " t"],
    labeled: Bool[Array, " t"],
    learning_rate: float,
    momentum: float,
    steps: int,
) -> Float[Array, " t"]:
    """Takes projected steps with momentum, from w along the slope `matrix w + offset`."""

    def step(_, carry):
        w, velocity = carry
        velocity = momentum * velocity + precise_dot(matrix, w) + offset
        return project_simplex(w - learning_rate * velocity, labeled), velocity

    last: Array = jax.lax.fori_loop(0, steps, step, (w, jnp.zeros_like(w)))[0]
    return last


def _scale_to_unit_norm(matrix: Float[Array, "t t"]) -> Float[Array, "t t"]:
    """Scales a matrix to Frobenius norm 1; a matrix of zeros stays."""
    # First to a largest entry of 1, since the squares in the Frobenius norm can overflow.
    size = jnp.max(jnp.abs(matrix))
    matrix = matrix / jnp.where(size > 0, size, 1.0)
    return matrix / jnp.maximum(jnp.sqrt((matrix**2).sum()), 1.0)


def modo(
    learning_rate: float = 1e-3,
    regularization: float = 0.1,
    *,
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Descends |J^T w|^2 / 2 + regularization |w|^2 / 2 over the simplex by one step per update.

    The step is w <- projection of w - learning_rate (J_1 J_2^T w + regularization w). Each half of
    the batch is one sample, and the direction J^T w comes from the whole batch, both of them, as in
    the paper; the authors' code has an option that draws a third sample for it.

    Args:
      learning_rate: step size for the weights.
      regularization: strength of the regularization, which pulls the weights toward each other.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Source: Chen, Fernando, Ying, Chen, NeurIPS 2023, JMLR 2024 (arXiv:2305.20057), algorithm 2;
    the defaults are those of the authors' code, as it is in LibMTL.

    Example:
      With exact gradients the gradient of w is (2, 0.5), and the step leads from (0.5, 0.5) to
      (0.3, 0.45) and, projected, to (0.425, 0.575).

      >>> import jax
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import modo
      >>> from mmjax.balance.pullback import pullback_from_jacobian
      >>> balancer = modo(learning_rate=0.1, regularization=0.0)
      >>> gradient, weights, state = balancer.update(
      ...     jnp.ones(2),
      ...     pullback_from_jacobian({"x": jnp.array([[2.0, 0.0], [0.0, 1.0]])}, {"x": True}),
      ...     balancer.init(("a", "b"), {"x": jnp.zeros(2)}),
      ...     key=jax.random.key(0),
      ...     labeled=jnp.array([True, True]),
      ... )
      >>> print(np.asarray(weights).round(3))
      [0.425 0.575]
    """

    def weights(gram, w, labeled):
        # Line 5 of algorithm 2, an unbiased estimate of (J J^T + regularization I) w.
        slope = precise_dot(gram, w) + regularization * w
        w = project_simplex(w - learning_rate * slope, labeled)
        return w, w

    return _from_cross_gramian(weights, weigh_heads=weigh_heads, rescale=rescale)


def _from_cross_gramian(
    weights: Callable[..., tuple[Float[Array, " t"], Float[Array, " t"]]],
    *,
    weigh_heads: bool,
    rescale: bool,
) -> Balancer:
    """Lifts `weights(cross Gramian, w on the simplex, labeled) -> (weights, new w)` to a balancer.

    The state is w, initially 1/T. A task without labels keeps its entry; `weights` gets the others
    scaled to sum to 1. If the pullback has no parts, as on a toy problem whose gradients are exact,
    both samples are those gradients.
    """

    def init(tasks: Sequence[str], params: Params) -> Float[Array, " t"]:
        return jnp.full(len(tasks), 1 / len(tasks), jnp.float32)

    def update(losses, pullback, state, *, key, labeled):
        first, second = pullback.parts or (pullback, pullback)
        gram = _cross_gramian(first.jacobian(), second.jacobian())
        old, mass = normalize_over_labeled(state, labeled)
        w, new = weights(gram, old, labeled)
        w = jnp.where(labeled, w, 0.0)
        w = rescale_weights(w, labeled) if rescale else w
        task_specific = pullback.task_specific(w if weigh_heads else jnp.ones_like(w))
        gradient = merge_params(pullback.shared(w), task_specific)
        return gradient, w, jnp.where(labeled, mass * new, state)

    return Balancer(init, update, parts=2)


def _cross_gramian(first: PyTree[Array], second: PyTree[Array]) -> Float[Array, "t t"]:
    """Returns the inner products [t t] of the rows of two Jacobians, as in `gramian`."""

    def flatten(leaf: Array) -> Float[Array, "t p"]:
        return leaf.reshape(len(leaf), -1).astype(jnp.promote_types(leaf.dtype, jnp.float32))

    products = jax.tree.map(lambda a, b: precise_dot(flatten(a), flatten(b).T), first, second)
    return jax.tree.reduce(jnp.add, products)
