"""Starts balancers, and wraps one in another whose state has it as the field `balancer`."""

from collections.abc import Callable, Sequence
from typing import Any

from mmjax.balance.base import Balancer, State
from mmjax.types import Params


def init_balancer(
    balancer: Balancer,
    tasks: Sequence[str],
    shared: Params,
    *,
    modalities: Sequence[str] = (),
    params: Params | None = None,
) -> State:
    """Returns the balancer's first state; it gets the modalities and the parameters if it asks."""
    options: dict[str, Any] = {} if balancer.scores is None else {"modalities": modalities}
    if balancer.params:
        options["params"] = params
    return balancer.init(tasks, shared, **options)


def wrap_balancer(balancer: Balancer, **fields: Any) -> Balancer:
    """Returns the balancer with some fields replaced, and the others lifted to the new state.

    Args:
      balancer: the balancer to wrap.
      fields: fields of `Balancer`, for a state with a field `balancer`: that of the wrapped one.

    Example:
      >>> from mmjax.balance import equal
      >>> wrap_balancer(equal(), scores="unimodal").scores
      'unimodal'
    """
    lifts = {"update": _lift_step, "after": _lift_update, "validate": _lift_update}
    for name, lift in (lifts | {"hide": _lift, "revise": _lift}).items():
        function = getattr(balancer, name)
        if function is not None:
            fields = {name: lift(function)} | fields
    return balancer._replace(**fields)


def check_scores(method: str, balancer: Balancer, scores: str, *, hides: bool = False) -> None:
    """Raises ValueError if a balancer cannot be wrapped in a method that scores modalities, too.

    Args:
      method: name of the method.
      balancer: the balancer to wrap.
      scores: how the method scores modalities; see `Balancer.scores`.
      hides: whether the method drops modalities or their features.
    """
    if balancer.scores not in (None, scores):
        raise ValueError(
            f"{method}: the balancer scores modalities by {balancer.scores!r} predictions and "
            f"{method} by {scores!r} ones; combine methods with the same scores."
        )
    if hides and balancer.hide is not None:
        raise ValueError(
            f"{method}: the balancer drops modalities or their features already; keep only one "
            "method that does, such as opm or amco."
        )


def _lift_step(update: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `Balancer.update` of the wrapped state update the new one."""

    def lifted(losses, pullback, state, **options):
        gradient, weights, inner = update(losses, pullback, state.balancer, **options)
        return gradient, weights, state._replace(balancer=inner)

    return lifted


def _lift(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a function of the wrapped state read the new one."""

    def lifted(state: Any, *args: Any, **options: Any) -> Any:
        return function(state.balancer, *args, **options)

    return lifted


def _lift_update(function: Callable[..., State]) -> Callable[..., State]:
    """Lets a function that updates the wrapped state update the new one."""

    def lifted(state: Any, *args: Any, **options: Any) -> State:
        return state._replace(balancer=function(state.balancer, *args, **options))

    return lifted
