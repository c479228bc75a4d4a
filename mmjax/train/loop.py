"""`fit`: training with validation, checkpoints, early stopping and exact resume."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from mmjax.experiment import Experiment
from mmjax.train import writers
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.plan import Plan
from mmjax.train.programs import LoopState, Programs
from mmjax.train.progress import progress
from mmjax.train.step import loss_names

Totals = Mapping[str, tuple[np.ndarray, np.ndarray]]


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a parameter became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
      state: the final loop state.
      validation: {metric: value} of each seed's best parameters on the validation split.
      test: the same on the test split.
      seconds: time spent in `fit`.
      first_dispatch_seconds: time to the end of the first dispatch, compilation included.
      examples_per_second: training throughput after the first dispatch, all seeds together.
    """

    state: LoopState
    validation: list[dict[str, float]]
    test: list[dict[str, float]]
    seconds: float
    first_dispatch_seconds: float
    examples_per_second: float


def fit(
    experiment: Experiment,
    directory: Path,
    *,
    seeds: Sequence[int] = (0,),
    devices: Sequence[jax.Device] | None = None,
    title: str = "training",
) -> Fitted:
    """Trains, and evaluates the best parameters on the validation and the test split.

    All seeds train as one program. If `directory` holds checkpoints, training goes on from the
    newest and gives, bit for bit, what it would have given uninterrupted.

    Args:
      experiment: what to train.
      directory: where checkpoints and logs go.
      seeds: seeds of the initial parameters, the order of examples and all that is drawn.
      devices: by default all of them.
      title: what the progress bar is called.

    Raises:
      ValueError: where the experiment's parts or its data do not fit.
      NonFiniteError: where a loss, a gradient or a parameter stops being finite.
      DiskFullError: where a checkpoint finds no room.
    """
    clock = Clock()
    programs = Programs(experiment, seeds, devices or jax.devices())
    state = programs.init()
    checkpoints = Checkpoints(directory / "checkpoints")
    state = checkpoints.restore(state) or state
    plan = Plan(experiment, programs.seeds, programs.splits.size("train"), state.steps_done)
    writes = open_writers(directory, programs.seeds, state.steps_done)

    with progress(title, plan.total, plan.first, programs.examples_per_step) as report:
        chunks = programs.splits.feed("train").chunks(plan.dispatches)
        for (start, stop), (data, indices) in zip(plan.ranges, chunks, strict=True):
            if programs.stopped(state).all():
                break
            train, metrics = programs.train(state.train, data, indices)
            state, metrics = state._replace(train=train), jax.device_get(metrics)
            clock.dispatched(stop - start)
            check_finite(metrics, start, programs, checkpoints)
            running = np.flatnonzero(~programs.stopped(state)).tolist()
            for i in running:
                writes[i](stop, means(metrics, i))
            report(stop, task_losses(metrics))
            if plan.validates_at(stop):
                validation = programs.evaluate(state.train.params, "validation")
                state = programs.judge(state, validation)
                for i in running:
                    writes[i](stop, {f"validation/{k}": v for k, v in validation[i].items()})
                checkpoints.save(stop, state)
    checkpoints.close()
    return Fitted(
        state=state,
        validation=programs.evaluate(state.best_params, "validation"),
        test=programs.evaluate(state.best_params, "test"),
        seconds=clock.seconds(),
        first_dispatch_seconds=clock.first,
        examples_per_second=clock.steps_per_second() * programs.examples_per_step,
    )


class Clock:
    """Times a run: the first dispatch, which compiles, apart from the others."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.first = float("nan")
        self.steps = 0

    def dispatched(self, steps: int) -> None:
        """Notes that a dispatch has ended."""
        if self.first == self.first:
            self.steps += steps
        else:
            self.first = self.seconds()
        self.last = self.seconds()

    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begin

    def steps_per_second(self) -> float:
        """Steps a second after the first dispatch, validation included."""
        return self.steps / (self.last - self.first) if self.steps else float("nan")


def check_finite(metrics: Totals, start: int, programs: Programs, checkpoints: Checkpoints) -> None:
    """Stops a run whose losses, gradients or parameters are not finite, before it is saved.

    Raises:
      NonFiniteError: naming the step, the task, the seed, the last good checkpoint, and the mend.
    """
    losses = loss_names(programs.experiment.model)
    names = [f"loss/{name}" for name in losses] + ["loss", "gradient_norm", "parameter_norm"]
    bad = np.stack([~np.isfinite(metrics[name][0]) for name in names])  # [names, seeds, steps]
    if not bad.any():
        return
    step = int(np.flatnonzero(bad.any((0, 1)))[0])
    name, seed = np.argwhere(bad[:, :, step])[0]
    what = f"loss {losses[name]!r}" if name < len(losses) else names[name].replace("_", " ")
    raise NonFiniteError(
        f"The {what} is {metrics[names[name]][0][seed, step]} at step {start + step} "
        f"(seed {programs.seeds[seed]}). The last good checkpoint is "
        f"{checkpoints.newest() or 'none yet'}. Lower the learning rate, clip the gradients "
        "(optax.clip_by_global_norm), or look for bad values in the data."
    )


def open_writers(directory: Path, seeds: Sequence[int], resume_at: int) -> list[writers.Writer]:
    """A JSON lines and a TensorBoard log a seed; of several processes the first one writes."""
    if jax.process_index():
        return [writers.tee() for _ in seeds]
    return [
        writers.tee(
            writers.jsonl(directory / f"metrics-seed{seed}.jsonl", resume_at),
            writers.tensorboard(directory / "tensorboard" / f"seed{seed}", resume_at),
        )
        for seed in seeds
    ]


def means(metrics: Totals, seed: int) -> dict[str, float]:
    """The means over a dispatch's steps of one seed's training metrics."""
    sums = {k: (float(t[seed].sum()), float(n[seed].sum())) for k, (t, n) in metrics.items()}
    return {f"train/{k}": total / count for k, (total, count) in sums.items() if count}


def task_losses(metrics: Totals) -> dict[str, float]:
    """The tasks' losses in a dispatch, over all seeds, for the eye."""
    losses = {k[5:]: v for k, v in metrics.items() if k.startswith("loss/")}
    return {k: float(t.sum() / max(n.sum(), 1)) for k, (t, n) in losses.items()}
