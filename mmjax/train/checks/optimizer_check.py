"""Checks before compilation that an optimizer works with the arguments of a training step.

A step passes the gradients, the state, the parameters, and the weighted loss as `value`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, PyTree

from mmjax.experiment import Experiment
from mmjax.inspection.model_check import name_errors
from mmjax.model import Model
from mmjax.train.steps.averages import find_states
from mmjax.train.steps.train_step import make_optimizer_update
from mmjax.types import Batch, Optimizer

_SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
_LINE_SEARCH = (
    "it has a line search, which needs the loss as a function (value_fn), and a step has one batch "
    "and several tasks. Use another optimizer, or L-BFGS without line search: "
    "optax.lbfgs(1e-2, linesearch=None)."
)
_REFUSED_STATES: dict[type[Any], str] = {
    optax.ScaleByZoomLinesearchState: _LINE_SEARCH,
    optax.ScaleByBacktrackingLinesearchState: _LINE_SEARCH,
    optax.LookaheadState: (
        "optax.lookahead keeps two trees of parameters (LookaheadParams), and a step has one. Use "
        "its fast optimizer with averaged parameters: Experiment(ema=0.99)."
    ),
    optax.contrib.HutchinsonState: (
        "optax.contrib.sophia needs the loss as a function (obj_fn) for second derivatives. Use "
        "another optimizer, such as optax.adamw or optax.contrib.muon."
    ),
    optax.contrib.DifferentiallyPrivateAggregateState: (
        "differentially private optimizers, such as optax.contrib.dpsgd, need the gradient of each "
        "example, and a step has that of the batch. Use another optimizer."
    ),
}


def check_optimizer(optimizer: Optimizer, params: Any) -> PyTree:
    """Refuses an optimizer that cannot update the parameters of a model in a training step.

    Args:
      optimizer: the optimizer.
      params: the parameters, or their shapes.

    Returns:
      The shapes of the optimizer's state.

    Raises:
      ValueError: naming what the optimizer needs, and what to use instead.

    Example:
      >>> state = check_optimizer(optax.sgd(1e-2, momentum=0.9), {"w": jnp.ones(2)})
      >>> [x.shape for x in jax.tree.leaves(state)]
      [(2,)]
    """
    update = make_optimizer_update(optimizer)
    with name_errors("optimizer", "it cannot be initialized with the model's parameters"):
        state = jax.eval_shape(optimizer.init, params)
    for kind, reason in _REFUSED_STATES.items():
        if find_states(state, kind):
            raise ValueError(f"optimizer: {reason}")
    problem = "it cannot update by gradients, state, parameters and value alone"
    with name_errors("optimizer", problem):
        updates, _ = jax.eval_shape(update, params, state, params, _SCALAR)
        updated = jax.eval_shape(optax.apply_updates, params, updates)
    before, after = (jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (params, updated))
    if before != after:
        raise ValueError("optimizer: its updates change the structure or shapes of the parameters.")
    return state


def accumulates_gradients(opt_state: PyTree) -> bool:
    """Checks whether an optimizer averages the gradients of several steps by `optax.MultiSteps`.

    Args:
      opt_state: the optimizer's state, or its shapes.

    Example:
      >>> accumulates_gradients(optax.MultiSteps(optax.sgd(0.1), 4).init({"w": jnp.ones(2)}))
      True
    """
    return bool(find_states(opt_state, optax.MultiStepsState))


def check_equal_counts(
    labeled: Mapping[str, Bool[np.ndarray, " n"]], weighed: Collection[str] = ()
) -> None:
    """Refuses unequal batches for an optimizer that accumulates gradients.

    `optax.MultiSteps` averages micro-batches that are means over labeled examples already: if their
    numbers of labels, or the sums of the labels' weights, differ, the average is not the mean over
    the examples of all of them.

    Args:
      labeled: {task: whether each training example has a label}.
      weighed: the tasks whose labels have weights.

    Raises:
      ValueError: naming the task and the way that is right.

    Example:
      >>> check_equal_counts({"digit": np.ones(4, bool)})
    """
    for task, mask in labeled.items():
        missing = int(np.sum(~np.asarray(mask)))
        if missing:
            reason = f"{missing} of {len(mask)} training examples have no label of task {task!r}"
        elif task in weighed:
            reason = f"the labels of task {task!r} have weights"
        else:
            continue
        unequal = "numbers of labels" if missing else "sums of weights"
        raise ValueError(
            f"optimizer: optax.MultiSteps gives each of its batches the same weight, but {reason}, "
            f"so that batches have different {unequal}. Remove MultiSteps, multiply batch_size by "
            "its number of steps, and set the experiment's accumulate to that number, which needs "
            "as little memory."
        )


def list_weighed_tasks(model: Model, batch: Batch) -> list[str]:
    """Lists the tasks whose labels do not all count the same, by their examples or classes.

    Args:
      model: the model.
      batch: any examples of the data set.
    """
    return [
        task
        for task, head in model.heads.items()
        if task in batch.weights or getattr(head, "class_weights", None) is not None
    ]


def check_label_counts(
    opt_state: Any, metrics: Mapping[str, tuple[Any, Any]], experiment: Experiment
) -> None:
    """Refuses steps whose batches lacked labels, for data that are read while training.

    Args:
      opt_state: the optimizer's state.
      metrics: those of the steps; see `mmjax.train.steps.train_step.make_train_step`.
      experiment: the experiment, whose labels have no weights.

    Raises:
      ValueError: see `check_equal_counts`.
    """
    if accumulates_gradients(opt_state):
        for task in experiment.model.heads:
            for count in np.ravel(metrics[f"loss/{task}"][1]):
                check_equal_counts({task: np.arange(experiment.batch_size) < count})
