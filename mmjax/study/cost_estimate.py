"""What a study will take: its arms, its programs, and an estimate of the time."""

import time
from collections.abc import Sequence

import jax

from mmjax.console import print_paragraph, print_table, print_text
from mmjax.study.live_display import shown
from mmjax.study.packing import Lane, split, steps, sweep
from mmjax.study.run_study import Plan
from mmjax.train.programs import Programs
from mmjax.train.schedule import Plan as Dispatches

TIMED = 4  # dispatches, after the first one


def describe(plan: Plan, devices: Sequence[jax.Device] | None, most: int | None) -> None:
    """Prints the arms, the programs with their lanes, and how long they may take.

    The baseline's program is compiled and runs for a few dispatches. Each other program is reckoned
    to take as long to compile, and a step of each of its lanes as long as its floating-point
    operations say; validation and tests are not reckoned.
    """
    tuning = plan.study.tuning
    trials = 0 if tuning is None else tuning.trials * len(tuning.seeds)
    programs = [piece for lanes in plan.groups() for piece in split(lanes, most)]
    show_arms(plan)
    baseline = next(p for p in programs if p[0].unit.home.name == holder(plan, programs))
    first, second = measure(plan, baseline, devices)
    unit = flops(plan, baseline, devices)
    rows, total = [], 0.0
    for lanes in programs:
        share = flops(plan, lanes, devices) / unit
        number = steps(plan.build(lanes[0].unit.config))
        arms = list(dict.fromkeys(lane.unit.home.name for lane in lanes))
        more = trials * len(arms)
        seconds = first + second * share * number * (len(lanes) + more)
        total += seconds + (first if more else 0)
        rows.append([name_of(arms), str(len(lanes)), str(number), f"{share:.2f}", shown(seconds)])
    print_table([["program", "lanes", "steps", "FLOPs", "about"], *rows])
    if tuning is not None:
        print_text(f"Tuning: {tuning.trials} trials an arm, {trials} lanes; included in the times.")
    print_paragraph(
        f"\n{len(plan.arms)} arms, {len(programs)} programs to compile, "
        f"{sum(map(len, programs))} lanes: about {shown(total)}.\n"
        f"Measured: the program of {plan.facts['baseline']} took {first:.1f} s to its first "
        f"dispatch's end and {1000 * second:.2f} ms a step and lane; the others are reckoned from "
        "it by their FLOPs. Validation and tests are left out."
    )


def holder(plan: Plan, programs: Sequence[Sequence[Lane]]) -> str:
    """The first arm of the program that the baseline is in."""
    for lanes in programs:
        if any(lane.unit.home.name == plan.facts["baseline"] for lane in lanes):
            return lanes[0].unit.home.name
    raise KeyError(plan.facts["baseline"])


def flops(plan: Plan, lanes: Sequence[Lane], devices: Sequence[jax.Device] | None) -> int:
    """Floating-point operations of a training step of one lane."""
    experiment = plan.build(lanes[0].unit.config)
    return Programs(experiment, [lanes[0].seed], devices).flops()


def measure(
    plan: Plan, lanes: Sequence[Lane], devices: Sequence[jax.Device] | None
) -> tuple[float, float]:
    """Seconds to the end of a program's first dispatch, and of a step of one lane after it."""
    begin = time.perf_counter()
    experiment = plan.build(lanes[0].unit.config)
    seeds = [lane.seed for lane in lanes]
    programs = Programs(experiment, seeds, devices, sweep(lanes, experiment))
    dispatches = Dispatches(experiment, programs.seeds, programs.splits.size("train"))
    ranges = [r for r in dispatches.ranges if r[1] - r[0] == dispatches.ranges[0][1]]
    chunks = programs.splits.feed("train").chunks(dispatches.dispatches)
    state, times = None, []
    for _, (data, indices) in zip(ranges[: 1 + TIMED], chunks, strict=False):
        state = state or programs.compile_and_init(data, indices).train
        state, metrics = programs.train(state, data, indices)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - begin)
    if len(times) < 2:
        return times[0], times[0] / ranges[0][1] / len(lanes)
    return times[0], (times[-1] - times[0]) / (len(times) - 1) / ranges[0][1] / len(lanes)


def show_arms(plan: Plan) -> None:
    """Prints every arm with what it changes."""
    rows = [
        [
            name + (" (baseline)" if name == plan.facts["baseline"] else ""),
            ", ".join(f"{path}={value}" for path, value in arm.changes.items()),
        ]
        for name, arm in plan.arms.items()
    ]
    print_table([["arm", "changes"], *rows], words=2)


def name_of(arms: Sequence[str]) -> str:
    """A program's arms in short."""
    return arms[0] + (f" and {len(arms) - 1} more" if len(arms) > 1 else "")
