"""`fit`: training with validation, checkpoints, early stopping and exact resume."""

import dataclasses
import datetime
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from mmjax.experiment import Experiment
from mmjax.interrupts import StopRequest
from mmjax.train import metric_writers
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.device_memory import check_memory, memory_errors
from mmjax.train.divergence import Lanes, NonFiniteError, Totals
from mmjax.train.programs import LoopState, Programs
from mmjax.train.progress_bar import Report, progress
from mmjax.train.schedule import Plan
from mmjax.train.traced_hparams import Sweep

TEN_MINUTES = datetime.timedelta(minutes=10)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
      state: the final loop state.
      validation: {metric: value} of each lane's best parameters on the validation split.
      test: the same on the test split; empty where it was not to be tested.
      failed: {lane: why it is no longer finite}, where others are.
      seconds: time spent in `fit`.
      first_dispatch_seconds: time to the end of the first dispatch, compilation included.
      examples_per_second: training throughput after the first dispatch, all lanes together.
      step_seconds: time of a training step of all lanes, without validation: the median over the
        dispatches after the first one, so that a pause of the machine does not count; NaN where
        there was no other dispatch.
      peak_bytes: memory that a dispatch of training needs on one device, its data included, over
        the number of lanes that the device computes at once.
      flops: floating-point operations of one lane's training step.
    """

    state: LoopState
    validation: list[dict[str, float]]
    test: list[dict[str, float]]
    failed: dict[int, NonFiniteError]
    seconds: float
    first_dispatch_seconds: float
    examples_per_second: float
    step_seconds: float
    peak_bytes: int
    flops: int


def fit(
    experiment: Experiment,
    directory: Path,
    *,
    seeds: Sequence[int] = (0,),
    devices: Sequence[jax.Device] | None = None,
    title: str = "training",
    sweep: Sweep | None = None,
    homes: Sequence[Path] | None = None,
    test: bool = True,
    memory: int | None = None,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
    show: Callable[..., AbstractContextManager[Report]] = progress,
) -> Fitted:
    """Trains, and evaluates the best parameters on the validation and the test split.

    All seeds train as one program. If `directory` holds checkpoints, training goes on from the
    newest and gives, bit for bit, what it would have given uninterrupted.

    On SIGTERM, SIGHUP and SIGINT (Ctrl-C) it ends the running dispatch, or stops waiting for data,
    saves a checkpoint and raises `Interrupted`; a second signal ends the process at once. A
    dispatch that takes longer than the notice that a machine gives before it stops needs fewer
    `steps_per_dispatch`.

    Args:
      experiment: what to train.
      directory: where checkpoints go, and logs if `homes` does not say otherwise.
      seeds: seeds of the initial parameters, the order of examples and all that is drawn.
      devices: by default those that `mmjax.train.devices.choose_devices` says.
      title: what the progress bar is called.
      sweep: numbers in which the lanes differ, one lane a seed.
      homes: where each lane's log goes. Lanes of one home fail together, and others go on without
        them.
      test: whether the test split is looked at.
      memory: bytes that a device can give, if they are to be checked before the first step.
      checkpoint_every: steps or time after which a checkpoint is due besides those of the
        validations, at the end of a dispatch; None saves no others. Processes that train together
        have clocks of their own, so there only steps count.
      show: what shows the progress, as `mmjax.train.progress_bar.progress` does.

    Raises:
      ValueError: where the experiment's parts or its data do not fit.
      NonFiniteError: where a loss, a gradient or a parameter of every lane's home stops being
        finite.
      MemoryShortError: where the program needs more than `memory`, or than the device has.
      DiskFullError: where a checkpoint finds no room.
      Interrupted: a signal arrived, and the checkpoint is saved.
    """
    clock = Clock()
    programs = Programs(experiment, seeds, devices, sweep)
    lanes, peak = Lanes(programs, homes or [directory] * len(programs.seeds)), 0
    checkpoints = Checkpoints(directory / "checkpoints")
    state: LoopState | None = checkpoints.restore(programs.abstract_state)
    if state:
        lanes.check_state(state, checkpoints)
    done = state.steps_done if state else 0
    plan = Plan(experiment, programs.seeds, programs.splits.size("train"), done)
    writes = open_writers(lanes.homes, programs.seeds, done)
    is_due = CheckpointTimer(checkpoint_every, done)

    with (
        memory_errors(len(lanes.homes)),
        show(title, plan.total, plan.first, programs.examples_per_step) as report,
        StopRequest() as stop_request,
    ):
        chunks = stop_request.watch(programs.splits.feed("train").chunks(plan.dispatches))
        for (start, stop), chunk in zip(plan.ranges, chunks, strict=True):
            if chunk is None:  # a signal while the data were waited for
                if start > is_due.step:
                    checkpoints.save(start, state)
                checkpoints.close()
                raise stop_request.interruption(start)
            data, indices = chunk
            if not peak:
                report(start, "compiling ...")
            state = state or programs.begin(data, indices)
            if programs.stopped(state).all():
                break
            if not peak:
                peak = programs.peak_bytes(data, indices)
                check_memory(peak, memory, len(lanes.homes))
                stop_request.defer_signals()
            clock.dispatching()
            train, metrics = programs.train(state.train, data, indices)
            state, metrics = state._replace(train=train), jax.device_get(metrics)
            clock.dispatched(stop - start)
            lanes.check(metrics, start, checkpoints)
            running = [i for i in lanes.sound() if not programs.stopped(state)[i]]
            for i in running:
                writes[i](stop, means(metrics, i))
            report(stop, format_losses(metrics))
            validates = plan.validates_at(stop)
            if validates:
                validation = programs.evaluate(state.train.params, "validation")
                state = programs.judge(state, validation, lanes.failed)
                for i in running:
                    writes[i](stop, {f"validation/{k}": v for k, v in validation[i].items()})
            stops = stop_request.has_arrived()
            if validates or stops or is_due(stop):
                checkpoints.save(stop, state)
                is_due.restart(stop)
            if stops:
                checkpoints.close()
                raise stop_request.interruption(stop)
        checkpoints.close()
        assert state is not None  # a run has a step to make, or has made some
        stop_request.end_deferral(state.steps_done)
        if state.steps_done < plan.total:
            report(state.steps_done, format_early_stop(state), last=True)
        return Fitted(
            state=state,
            validation=programs.evaluate(state.best_params, "validation"),
            test=programs.evaluate(state.best_params, "test") if test else [],
            failed=lanes.failed,
            seconds=clock.seconds(),
            first_dispatch_seconds=clock.first,
            examples_per_second=clock.steps_per_second() * programs.examples_per_step,
            step_seconds=clock.step_seconds(),
            peak_bytes=peak // programs.lanes_at_once,
            flops=programs.flops(),
        )


class CheckpointTimer:
    """Decides when a checkpoint is due besides those of the validations.

    Args:
      every: number of steps, or time, since the last checkpoint; None is never.
      step: the step of the checkpoint that training goes on from.
    """

    def __init__(self, every: int | datetime.timedelta | None, step: int) -> None:
        amount = every.total_seconds() if isinstance(every, datetime.timedelta) else every
        if amount is not None and amount <= 0:
            raise ValueError(f"checkpoint_every is {every}; it must be more than 0.")
        self.every = every
        self.restart(step)

    def restart(self, step: int) -> None:
        """Notes that the checkpoint of a step is saved."""
        self.step, self.time = step, time.monotonic()

    def __call__(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps."""
        if isinstance(self.every, datetime.timedelta):
            late = time.monotonic() - self.time >= self.every.total_seconds()
            return late and jax.process_count() == 1
        return self.every is not None and step - self.step >= self.every


class Clock:
    """Times a run: the first dispatch, which compiles, apart from the others."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.first = float("nan")
        self.steps = 0
        self.step_times: list[float] = []

    def dispatching(self) -> None:
        """Notes that a dispatch begins."""
        self.started = self.seconds()

    def dispatched(self, steps: int) -> None:
        """Notes that a dispatch has ended."""
        if self.first == self.first:
            self.steps += steps
            self.step_times.append((self.seconds() - self.started) / steps)
        else:
            self.first = self.seconds()
        self.last = self.seconds()

    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begin

    def steps_per_second(self) -> float:
        """Steps a second after the first dispatch, validation included."""
        return self.steps / (self.last - self.first) if self.steps else float("nan")

    def step_seconds(self) -> float:
        """Seconds a step, validation left out: the median over the dispatches after the first."""
        return statistics.median(self.step_times) if self.step_times else float("nan")


def open_writers(
    homes: Sequence[Path], seeds: Sequence[int], resume_at: int
) -> list[metric_writers.Writer]:
    """A JSON lines and a TensorBoard log a lane; of several processes the first one writes."""
    if jax.process_index():
        return [metric_writers.tee() for _ in seeds]
    return [
        metric_writers.tee(
            metric_writers.jsonl(home / f"metrics-seed{seed}.jsonl", resume_at),
            metric_writers.tensorboard(home / "tensorboard" / f"seed{seed}", resume_at),
        )
        for home, seed in zip(homes, seeds, strict=True)
    ]


def means(metrics: Totals, lane: int) -> dict[str, float]:
    """The means over a dispatch's steps of one lane's training metrics."""
    sums = {k: (float(t[lane].sum()), float(n[lane].sum())) for k, (t, n) in metrics.items()}
    return {f"train/{k}": total / count for k, (total, count) in sums.items() if count}


def format_losses(metrics: Totals) -> str:
    """Formats the tasks' mean losses in a dispatch, over all seeds, for the progress bar."""
    losses = {k[5:]: v for k, v in metrics.items() if k.startswith("loss/")}
    return " ".join(f"{k} {t.sum() / max(n.sum(), 1):.3g}" for k, (t, n) in losses.items())


def format_early_stop(state: LoopState) -> str:
    """Says at which step a run stopped early, and which steps were best."""
    best = sorted({int(step) for step in state.best_step})
    return f"stopped early at step {state.steps_done} (best {', '.join(map(str, best))})"
