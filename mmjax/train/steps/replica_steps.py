"""The steps of one replica: its hyperparameters travel with its state."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from mmjax.data.augment import make_example_augmentation
from mmjax.freezing import complete_variables
from mmjax.train.hardware.parallel import DEVICE_AXIS
from mmjax.train.steps.eval_step import Statistics, make_eval_step
from mmjax.train.steps.loss_step import make_loss_step
from mmjax.train.steps.train_step import Metrics, make_train_step
from mmjax.train.traced_hparams import HparamValues, Sweep
from mmjax.types import Batch, Params, TrainState, Variables

Replica = tuple[HparamValues, TrainState]


def make_replica_train_step(
    sweep: Sweep, axis_name: str | None = DEVICE_AXIS
) -> Callable[..., tuple[Replica, Metrics]]:
    """Makes ((hyperparameters, state), batch, frozen) -> ((hyperparameters, state), metrics).

    See `make_train_step`.
    """

    def step(
        replica: Replica, batch: Batch, frozen: Variables | None = None
    ) -> tuple[Replica, Metrics]:
        values, state = replica
        e = sweep.traced(values)
        train_step = make_train_step(
            e.model,
            e.optimizer,
            e.balancer,
            augment=make_example_augmentation(e.augment, e.modality_dropout),
            diagnostics=e.diagnostics,
            compute_dtype=e.compute_dtype,
            ema=e.ema,
            accumulate=e.accumulate,
            axis_name=axis_name,
        )
        state, metrics = train_step(state, batch, frozen)
        return (values, state), metrics

    return step


def make_replica_eval_step(
    sweep: Sweep, axis_name: str | None = DEVICE_AXIS
) -> Callable[..., Statistics]:
    """Makes ((hyperparameters, variables), batch, frozen) -> statistics; see `make_eval_step`."""

    def step(
        replica: tuple[HparamValues, Variables], batch: Batch, frozen: Variables | None = None
    ) -> Statistics:
        values, variables = replica
        e = sweep.traced(values)
        eval_step = make_eval_step(e.model, compute_dtype=e.compute_dtype, axis_name=axis_name)
        return eval_step(complete_variables(variables, frozen), batch)

    return step


def make_replica_loss_step(
    sweep: Sweep, axis_name: str | None = DEVICE_AXIS
) -> Callable[..., Statistics]:
    """Makes ((hyperparameters, variables), batch, frozen) -> sums of all losses.

    See `make_loss_step`.
    """

    def step(
        replica: tuple[HparamValues, Variables], batch: Batch, frozen: Variables | None = None
    ) -> Statistics:
        values, variables = replica
        e = sweep.traced(values)
        loss_step = make_loss_step(e.model, compute_dtype=e.compute_dtype, axis_name=axis_name)
        return loss_step(complete_variables(variables, frozen), batch)

    return step


def make_replica_validation(sweep: Sweep) -> Callable[..., dict[str, Any]]:
    """Makes the function that lets the balancer react to a validation.

    It is (hyperparameters, balancer's state, parameters, train losses, validation losses) -> the
    fields of `TrainState` that change, parameters only if the balancer revises them; see
    `mmjax.balance.Balancer.validate` and `Balancer.revise`.
    """

    def validate(
        values: HparamValues, state: Any, params: Params, train: Array, validation: Array
    ) -> dict[str, Any]:
        balancer = sweep.traced(values).balancer
        assert balancer.validate is not None
        state = balancer.validate(state, train, validation)
        if balancer.revise is None:
            return {"balancer_state": state}
        return {"balancer_state": state, "params": balancer.revise(state, params)}

    return validate
