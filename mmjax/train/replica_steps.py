"""The steps of one replica: its hyperparameters travel with its state."""

from collections.abc import Callable

from mmjax.data.augment import augmentation
from mmjax.train.eval_step import Statistics, make_eval_step
from mmjax.train.parallel import AXIS
from mmjax.train.step import Metrics, make_train_step
from mmjax.train.traced_hparams import Sweep, Values
from mmjax.types import Batch, Params, TrainState

Lane = tuple[Values, TrainState]


def lane_step(
    sweep: Sweep, axis_name: str | None = AXIS
) -> Callable[[Lane, Batch], tuple[Lane, Metrics]]:
    """Makes ((hyperparameters, state), batch) -> ((hyperparameters, state), metrics).

    See `make_train_step`.
    """

    def step(replica: Lane, batch: Batch) -> tuple[Lane, Metrics]:
        values, state = replica
        e = sweep.traced(values)
        train_step = make_train_step(
            e.model,
            e.optimizer,
            e.balancer,
            augment=augmentation(e.augment, e.modality_dropout),
            diagnostics=e.diagnostics,
            compute_dtype=e.compute_dtype,
            axis_name=axis_name,
        )
        state, metrics = train_step(state, batch)
        return (values, state), metrics

    return step


def lane_eval_step(
    sweep: Sweep, axis_name: str | None = AXIS
) -> Callable[[tuple[Values, Params], Batch], Statistics]:
    """Makes ((hyperparameters, params), batch) -> statistics; see `make_eval_step`."""

    def step(replica: tuple[Values, Params], batch: Batch) -> Statistics:
        values, params = replica
        e = sweep.traced(values)
        eval_step = make_eval_step(e.model, compute_dtype=e.compute_dtype, axis_name=axis_name)
        return eval_step(params, batch)

    return step
