"""The balancer protocol: how the gradients of several losses become one gradient.

A balancer is a pair of pure functions, like an optax transformation. Its input is the losses and a
`Pullback`, which computes gradients on demand. A loss weighting needs one gradient, that of the
weighted sum; a gradient method needs the Jacobian. Everything is already reduced over devices, so a
nonlinear method is correct under data parallelism and contains no code for it.

Results have one order everywhere: (gradient, weights, state), without those that a function does
not compute. T (`t` in shapes) is the number of tasks, J [T P] the Jacobian, whose rows are the
tasks' gradients g_t, and G = J J^T [T T] their Gramian.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Key

from mmjax.balance.pullback import Pullback
from mmjax.types import Params, Visible

State = Any
Wrt = str | tuple[str, ...]


@runtime_checkable
class Update(Protocol):
    """The signature of `Balancer.update`."""

    def __call__(
        self,
        losses: Float[Array, " t"],
        pullback: Pullback,
        state: State,
        *,
        key: Key[Array, ""],
        labeled: Bool[Array, " t"],
    ) -> tuple[Params, Float[Array, " t"], State]:
        """Returns (gradient, weights, state); see `Balancer`."""
        ...


class Balancer(NamedTuple):
    """A way to balance tasks, as pure functions.

    Attributes:
      init: (names of the tasks in the order of the losses, shared parameters) -> state.
      update: (losses, pullback, state, *, key, labeled) -> (gradient, weights, state). The gradient
        covers all parameters. The weights [t] are those that the step used, for the log. `key` is
        fresh in each step; `labeled` marks the tasks that have a label in this batch (the loss and
        the gradient of the others are 0).
      after: (state, losses before, losses after the step on the SAME batch, *, labeled) -> state,
        for methods that learn from the effect of the step; it costs another forward pass.
      parts: number of independent parts that a batch is split into, for methods that need several
        estimates of the gradients; see `Pullback.parts`.
      scores: how the modalities are scored, for methods against their imbalance; see
        `Pullback.scores`. "unimodal": by the prediction from each alone, which costs one pass per
        modality through what follows the encoders; "shapley": by their Shapley values, one pass
        per subset. Then `init` also gets `modalities`, their names in order.
      hide: (state, {modality: Bool[b] of present examples}, *, key, indices [b]) -> {modality:
        Bool[b]}, which modalities each example shows to the fusion, or `FeatureDropout` for those
        of which it shows a part; the indices are those in the batch of all devices.
      validate: (state, losses [t] on the training split, losses [t] on the validation split) ->
        state, called by the loop after every validation, for methods that compare the two; it
        costs an evaluation of all losses on both splits.
      params: whether `init` also gets `params`, all parameters that train, for methods that compare
        parameters with earlier ones; the present ones are `Pullback.params`.
      revise: (state, parameters) -> parameters, called by the loop after `validate`, for methods
        that reset parameters.

    Example:
      With the identity as the Jacobian, the gradient equals the weights.

      >>> import jax
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import geometric
      >>> from mmjax.balance.pullback import pullback_from_jacobian
      >>> balancer = geometric()
      >>> gradient, weights, state = balancer.update(
      ...     jnp.array([1.0, 4.0]),
      ...     pullback_from_jacobian({"x": jnp.eye(2)}, {"x": True}),
      ...     balancer.init(("a", "b"), {"x": jnp.zeros(2)}),
      ...     key=jax.random.key(0),
      ...     labeled=jnp.array([True, True]),
      ... )
      >>> print(weights, gradient["x"])
      [1.   0.25] [1.   0.25]
    """

    init: Callable[..., State]
    update: Update
    after: Callable[..., State] | None = None
    parts: int = 1
    scores: Literal["unimodal", "shapley"] | None = None
    hide: Callable[..., dict[str, Visible]] | None = None
    validate: Callable[..., State] | None = None
    params: bool = False
    revise: Callable[..., Params] | None = None


def init_empty_state(tasks: Sequence[str], params: Params) -> State:
    """Returns the state of a balancer without memory: `Balancer.init`."""
    return ()
