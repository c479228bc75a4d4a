"""The check before compilation that a balancer can balance the losses of a model."""

import contextlib
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from mmjax.balance.jacobian_rows import require_shared_params
from mmjax.balance.pullback import ModalityScores, Pullback, require_shared_features
from mmjax.experiment import Experiment
from mmjax.inspection.model_check import Trace, name_errors
from mmjax.parameters import mark_shared_parameters, partition_params
from mmjax.train.steps.forward import get_loss_names, get_task_names
from mmjax.train.steps.state import init_balancer_state
from mmjax.types import Params


class _GradientRequest(Exception):  # noqa: N818 - not an error
    """Ends the trace of a balancer when it asks for gradients, since the rest takes the longest."""


def check_balancer(experiment: Experiment, trace: Trace, params: Any) -> None:
    """Refuses a balancer that cannot balance the losses of a model.

    The balancer is traced until it asks for gradients that the model has.

    Args:
      experiment: the experiment.
      trace: of its model.
      params: shapes of the parameters that train.

    Raises:
      ValueError: if it cannot be initialized, or if it or the diagnostics need shared parameters
        or features that the model does not have.
    """
    model, balancer = experiment.model, experiment.balancer
    count = len(get_loss_names(model))

    def request_gradients(params: Params, losses: Any, labeled: Any, scores: Any) -> None:
        state = init_balancer_state(model, balancer, params)
        pullback = _make_pullback(experiment, trace, params, scores)
        # JAX would take longer than the trace to shorten the traceback of what it sees raised.
        with contextlib.suppress(_GradientRequest):
            balancer.update(losses, pullback, state, key=jax.random.key(0), labeled=labeled)

    losses, labeled = (jax.ShapeDtypeStruct((count,), kind) for kind in (jnp.float32, bool))
    shape = len(model.encoders), len(get_task_names(model))
    scores = jax.ShapeDtypeStruct(shape, jnp.float32)
    with name_errors("balancer", "it cannot be used with the model's losses and parameters"):
        jax.eval_shape(request_gradients, params, losses, labeled, scores)
    if experiment.diagnostics and not jax.tree.leaves(_select_shared(experiment, params)):
        raise ValueError(
            "diagnostics=True compares the tasks' gradients with respect to the parameters that "
            "they share, but none of those that train are shared; set diagnostics=False."
        )


def _select_shared(experiment: Experiment, params: Any) -> Any:
    """Returns the parameters that the tasks share, with None for the others."""
    return partition_params(params, mark_shared_parameters(experiment.model, params))[0]


def _make_pullback(experiment: Experiment, trace: Trace, params: Params, scores: Any) -> Pullback:
    """Makes a pullback that refuses what that of the step would, and else ends the trace."""
    model, balancer = experiment.model, experiment.balancer

    def compute_gradient(weights: Any) -> NoReturn:
        raise _GradientRequest

    def compute_jacobian() -> NoReturn:
        require_shared_params(_select_shared(experiment, params))
        raise _GradientRequest

    def compute_feature_gram() -> NoReturn:
        require_shared_features(trace.shares_features and not model.auxiliary)
        raise _GradientRequest

    pullback = Pullback(
        gradient=compute_gradient,
        shared=compute_gradient,
        task_specific=compute_gradient,
        jacobian=compute_jacobian,
        feature_gram=compute_feature_gram,
        params=params,
    )
    modalities = tuple(sorted(model.encoders))
    return pullback._replace(
        parts=(pullback,) * balancer.parts if balancer.parts > 1 else (),
        scores=balancer.scores and ModalityScores(modalities, scores, scores, scores),
    )
