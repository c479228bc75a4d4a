"""`fit`: training with validation, checkpoints, early stopping and exact resume."""

import datetime
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from mmjax.experiment import Experiment
from mmjax.interrupts import StopRequest
from mmjax.pretrained.weight_loading import check_and_record_weights
from mmjax.train.checkpoint import Checkpoints, load_frozen, save_frozen
from mmjax.train.checks.optimizer_check import check_label_counts
from mmjax.train.divergence import MetricTotals, ReplicaHealth
from mmjax.train.fit_result import FitResult, make_fit_result
from mmjax.train.hardware.compilation import start_in_thread
from mmjax.train.hardware.device_memory import (
    check_memory,
    get_memory_limit,
    translate_memory_errors,
)
from mmjax.train.hardware.multihost import wait_for_processes
from mmjax.train.initial_state import InitialState
from mmjax.train.programs import Programs
from mmjax.train.reporting import metric_writers
from mmjax.train.reporting.progress_bar import ReportProgress, show_progress
from mmjax.train.schedule import Schedule
from mmjax.train.split_evaluation import evaluate_split, validate_balancer
from mmjax.train.steps.state import LoopState
from mmjax.train.timing import CheckpointTimer, TrainingClock
from mmjax.train.traced_hparams import Sweep

TEN_MINUTES = datetime.timedelta(minutes=10)


def fit(
    experiment: Experiment,
    directory: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    devices: Sequence[jax.Device] | None = None,
    title: str = "training",
    sweep: Sweep | None = None,
    homes: Sequence[Path] | None = None,
    test: bool = True,
    memory: int | None = None,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
    show: Callable[..., AbstractContextManager[ReportProgress]] = show_progress,
    checked: bool = False,
    allow_changes: bool = False,
) -> FitResult:
    """Trains, and evaluates the best parameters on the validation and the test split.

    All seeds train in one program. If `directory` holds checkpoints, training resumes from the
    newest one, and the result is bit for bit that of an uninterrupted run.

    On SIGTERM, SIGHUP and SIGINT (Ctrl-C) it finishes the running dispatch, or stops waiting for
    data, saves a checkpoint and raises `Interrupted`; a second signal ends the process at once. If
    a machine gives less notice before it stops than a dispatch takes, lower `steps_per_dispatch`.

    Args:
      experiment: what to train.
      directory: where checkpoints go, and logs if `homes` is None.
      seeds: seeds of the initial parameters, the order of examples and all random draws.
      devices: by default those that `mmjax.train.hardware.devices.choose_devices` returns.
      title: title of the progress bar.
      sweep: hyperparameters in which the replicas differ, one replica per seed.
      homes: directory of each replica's log. Replicas with the same home fail together, and the
        others continue without them.
      test: whether to evaluate on the test split.
      memory: bytes available per device, to be checked before the first step; None: all of the
        device's.
      checkpoint_every: steps or time after which a dispatch ends with a checkpoint, in addition to
        those of the validations; None saves no others. Of several processes only steps count, since
        their clocks differ.
      show: shows the progress, as `mmjax.train.reporting.progress_bar.show_progress` does.
      checked: whether `check_experiment` has accepted the experiment for these devices already.
      allow_changes: whether a run may continue although the files of `init` have changed; commands
        have compared them already.

    Raises:
      ValueError: if the experiment's parts or its data do not fit, or the run in `directory` has
        begun with other weights.
      NonFiniteError: if a loss, gradient or parameter stops being finite in every home.
      MemoryShortError: if the program needs more than `memory`, or than the device has.
      DiskFullError: if the disk has no space for a checkpoint.
      Interrupted: after a signal; the checkpoint is saved.

    Example:
      >>> from pathlib import Path
      >>> result = fit(experiment, Path("runs/digits"), seeds=(0, 1))  # doctest: +SKIP
      >>> result.test[0]["digit/accuracy"]  # doctest: +SKIP
      0.98
    """
    clock, directory = TrainingClock(), Path(directory).expanduser()
    programs = Programs(experiment, seeds, devices, sweep, checked=checked)
    replicas, peak = ReplicaHealth(programs, homes or [directory] * len(programs.seeds)), 0
    checkpoints = Checkpoints(directory / "checkpoints")
    check_and_record_weights(experiment.init, directory, allow=allow_changes)
    _restore_or_save_frozen(programs.initial, directory)
    feed = start_in_thread(lambda: programs.splits.feed("train"))  # copies the data meanwhile
    state: LoopState | None = checkpoints.restore(programs.initial.shapes)
    if state:
        replicas.check_state(state, checkpoints)
    done = state.steps_done if state else 0
    splits = programs.splits
    plan = Schedule(experiment, programs.seeds, splits.size("train"), done, splits.groups())
    writes: list[metric_writers.Writer] = []
    timer = CheckpointTimer(checkpoint_every, done)

    with (
        translate_memory_errors(len(replicas.homes)),
        show(title, plan.total, plan.first, programs.examples_per_step) as report,
        StopRequest() as stop_request,
    ):
        chunks = feed.result().chunks(plan.dispatches)
        for dispatch in stop_request.watch(zip(plan.ranges, chunks, strict=True)):
            if dispatch is None:  # a signal arrived while the loop waited for data
                assert state is not None  # signals are deferred from the first dispatch on
                if state.steps_done > timer.step:
                    checkpoints.save(state.steps_done, state)
                checkpoints.close()
                raise stop_request.interruption(state.steps_done)
            (start, stop), (data, indices) = dispatch
            if not peak:
                report(start, "compiling ...")
            state = state or programs.compile_and_init(data, indices)
            if programs.monitor.has_stopped(state).all():
                break
            if not peak:
                peak = programs.peak_bytes(data, indices)
                limit = get_memory_limit(programs.devices) if memory is None else memory
                check_memory(peak, limit, len(replicas.homes))
                wait_for_processes()
                # Until here a signal ends the process at once, since there is nothing to save.
                stop_request.defer_signals()
            clock.start_dispatch()
            train, metrics = programs.train(state.train, data, indices)
            # While the devices compute: the first start of TensorBoard's writer imports it.
            writes = writes or _open_writers(replicas.homes, programs.seeds, done)
            state, metrics = state._replace(train=train), jax.device_get(metrics)
            clock.end_dispatch(stop - start)
            replicas.check_metrics(metrics, start, checkpoints)
            check_label_counts(train.opt_state, metrics, experiment)
            running = [i for i in replicas.healthy() if not programs.monitor.has_stopped(state)[i]]
            for i in running:
                writes[i](stop, _average_metrics(metrics, i))
            report(stop, _format_losses(metrics))
            validates = plan.validates_at(stop)
            if validates:
                validation = evaluate_split(programs, state.eval_variables, "validation")
                state = programs.monitor.select_best(state, validation, replicas.failed)
                state = validate_balancer(programs, state)
                for i in running:
                    writes[i](stop, {f"validation/{k}": v for k, v in validation[i].items()})
            stops = stop_request.has_arrived()
            if validates or stops or timer.is_due(stop):
                checkpoints.save(stop, state)
                timer.restart(stop)
            if stops:
                checkpoints.close()
                raise stop_request.interruption(stop)
        checkpoints.close()
        assert state is not None  # a run has steps to make, or has made some
        stop_request.end_deferral(state.steps_done)
        if state.steps_done < plan.total:
            report(state.steps_done, _format_early_stop(state), last=True)
        return make_fit_result(programs, state, replicas.failed, clock, peak, test=test)


def _restore_or_save_frozen(initial: InitialState, directory: Path) -> None:
    """Starts from the frozen variables that the run stored, or stores them."""
    if (like := initial.frozen_shapes) is None:
        return
    stored = load_frozen(directory, like)
    if stored is not None:
        initial.frozen = stored
    else:
        assert initial.frozen is not None
        save_frozen(directory, initial.frozen)


def _open_writers(
    homes: Sequence[Path], seeds: Sequence[int], resume_at: int
) -> list[metric_writers.Writer]:
    """Opens a JSON lines and a TensorBoard log per replica; only the first process writes."""
    if jax.process_index():
        return [metric_writers.combine_writers() for _ in seeds]
    writers = []
    for home, seed in zip(homes, seeds, strict=True):
        log, events = home / f"metrics-seed{seed}.jsonl", home / "tensorboard" / f"seed{seed}"
        jsonl = metric_writers.open_jsonl_writer(log, resume_at)
        tensorboard = metric_writers.open_tensorboard_writer(events, resume_at)
        writers.append(metric_writers.combine_writers(jsonl, tensorboard))
    return writers


def _average_metrics(metrics: MetricTotals, replica: int) -> dict[str, float]:
    """Returns the means of one replica's training metrics over the steps of a dispatch."""
    averages = {}
    for name, (totals, counts) in metrics.items():
        total, count = float(totals[replica].sum()), float(counts[replica].sum())
        if count:
            averages[f"train/{name}"] = total / count
    return averages


def _format_losses(metrics: MetricTotals) -> str:
    """Formats the tasks' mean losses in a dispatch, over all replicas, for the progress bar."""
    losses = {k[5:]: v for k, v in metrics.items() if k.startswith("loss/")}
    return " ".join(f"{k} {t.sum() / (n.sum() or 1):.3g}" for k, (t, n) in losses.items())


def _format_early_stop(state: LoopState) -> str:
    """Formats the step at which a run stopped early, and the best steps."""
    best = sorted({int(step) for step in state.best_step})
    return f"stopped early at step {state.steps_done} (best {', '.join(map(str, best))})"
