"""Estimates for `mmjax ablate --dry-run` a study's arms, programs and training time."""

import time
from collections.abc import Sequence

import jax

from mmjax.printing.console import print_paragraph, print_table, print_text
from mmjax.printing.formatting import format_settings
from mmjax.study.folds import name_fold
from mmjax.study.live_display import format_duration
from mmjax.study.packing import StudyReplica, count_steps, list_seeds, make_sweep, split_replicas
from mmjax.study.study_plan import StudyPlan
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule

_TIMED_DISPATCHES = 4  # dispatches that are timed after the first one


def print_cost_estimate(
    plan: StudyPlan, devices: Sequence[jax.Device] | None, max_replicas: int | None
) -> None:
    """Prints the arms, the programs with their replicas, and the estimated time.

    The program of the baseline is compiled and run for a few dispatches. Every other program is
    assumed to compile in the same time, and its steps to take time in proportion to their
    floating-point operations. Validation and tests are not included.

    Args:
      plan: the study, checked by `check_plan`.
      devices: the devices that train; None leaves the choice to `choose_devices`.
      max_replicas: largest number of replicas per program; None for no limit.
    """
    tuning = plan.study.tuning
    trials = 0 if tuning is None else tuning.trials * len(tuning.seeds)
    programs: list[list[StudyReplica]] = []
    for replicas in plan.groups():
        programs += split_replicas(replicas, max_replicas)
    _print_arms(plan)
    baseline = _find_baseline_program(plan, programs)
    first_seconds, step_seconds = _measure_times(plan, baseline, devices)
    baseline_flops = _count_step_flops(plan, baseline, devices)
    rows, total = [], 0.0
    for replicas in programs:
        relative_flops = _count_step_flops(plan, replicas, devices) / baseline_flops
        number_of_steps = count_steps(plan.build(replicas[0].unit.config))
        arms = _list_arms(replicas)
        trial_replicas = trials * len(arms)
        trainings = len(replicas) + trial_replicas
        seconds = first_seconds + step_seconds * relative_flops * number_of_steps * trainings
        # Trials run in a program of their own, which is compiled too.
        total += seconds + (first_seconds if trial_replicas else 0)
        rows.append(
            [
                _name_program(arms),
                str(len(replicas)),
                str(number_of_steps),
                f"{relative_flops:.2f}",
                format_duration(seconds),
            ]
        )
    print_table([["program", "replicas", "steps", "FLOPs", "time"], *rows])
    if tuning is not None:
        print_text(
            f"Tuning: {tuning.trials} trials per arm, {trials} replicas; the times include it."
        )
    print_paragraph(
        f"\n{len(plan.facts['arms'])} arms{_format_folds(plan.study.folds)}, "
        f"{len(programs)} programs to compile, "
        f"{sum(map(len, programs))} replicas: about {format_duration(total)}.\n"
        f"Measured: the program of {plan.facts['baseline']} took {first_seconds:.1f} s to the end "
        f"of its first dispatch, then {1000 * step_seconds:.2f} ms per step per replica; the "
        "others are extrapolated by FLOPs. Validation and tests are not included."
    )


def _find_baseline_program(
    plan: StudyPlan, programs: Sequence[Sequence[StudyReplica]]
) -> Sequence[StudyReplica]:
    """Returns the replicas of the first arm's program among those that train the baseline.

    Raises:
      KeyError: no program trains the baseline.
    """
    first_arm, baseline = None, _name_trained_baseline(plan)
    for replicas in programs:
        if baseline in _list_arms(replicas):
            first_arm = replicas[0].unit.home.name
            break
    for replicas in programs:
        if replicas[0].unit.home.name == first_arm:
            return replicas
    raise KeyError(baseline)


def _list_arms(replicas: Sequence[StudyReplica]) -> list[str]:
    """Lists the arms that a program trains, each once."""
    return list(dict.fromkeys(replica.unit.home.name for replica in replicas))


def _name_trained_baseline(plan: StudyPlan) -> str:
    """Returns the name under which the baseline is trained, on the first fold if there are some."""
    baseline: str = plan.facts["baseline"]
    return name_fold(baseline, 0) if plan.study.folds else baseline


def _count_step_flops(
    plan: StudyPlan, replicas: Sequence[StudyReplica], devices: Sequence[jax.Device] | None
) -> int:
    """Counts the floating-point operations of one training step of one replica."""
    experiment = plan.build(replicas[0].unit.config)
    return Programs(experiment, [replicas[0].seed], devices, checked=True).flops()


def _measure_times(
    plan: StudyPlan, replicas: Sequence[StudyReplica], devices: Sequence[jax.Device] | None
) -> tuple[float, float]:
    """Returns the seconds to the end of a program's first dispatch, and per step per replica."""
    begin = time.perf_counter()
    experiment = plan.build(replicas[0].unit.config)
    sweep = make_sweep(replicas, experiment)
    programs = Programs(experiment, list_seeds(replicas), devices, sweep, checked=True)
    schedule = Schedule(experiment, programs.seeds, programs.splits.size("train"))
    # Only dispatches of the first one's length run without another compilation.
    ranges = [r for r in schedule.ranges if r[1] - r[0] == schedule.ranges[0][1]]
    chunks = programs.splits.feed("train").chunks(schedule.dispatches)
    state, times = None, []
    for _, (data, indices) in zip(ranges[: 1 + _TIMED_DISPATCHES], chunks, strict=False):
        state = state or programs.compile_and_init(data, indices).train
        state, metrics = programs.train(state, data, indices)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - begin)
    steps_per_dispatch = ranges[0][1]
    if len(times) < 2:
        return times[0], times[0] / steps_per_dispatch / len(replicas)
    dispatch_seconds = (times[-1] - times[0]) / (len(times) - 1)
    return times[0], dispatch_seconds / steps_per_dispatch / len(replicas)


def _print_arms(plan: StudyPlan) -> None:
    """Prints every arm with its changes."""
    rows = []
    for name, arm in plan.facts["arms"].items():
        mark = " (baseline)" if name == plan.facts["baseline"] else ""
        rows.append([name + mark, format_settings(arm["changes"])])
    print_table([["arm", "changes"], *rows], words=2)


def _format_folds(folds: int) -> str:
    """Returns " on FOLDS folds", or "" if there are none."""
    return f" on {folds} folds" if folds else ""


def _name_program(arms: Sequence[str]) -> str:
    """Returns a short name of a program that trains these arms."""
    return arms[0] + (f" and {len(arms) - 1} more" if len(arms) > 1 else "")
