"""Measures all cases with one number of threads, in one process; one row per case."""

import gc
import importlib.util
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from versus import compiled, memory, roofline, timing
from versus.case import Case, MmjaxSide, RunSteps
from versus.cases import (
    av_mnist,
    cross_modal,
    epoch,
    lenet,
    polyglot,
    seeds,
    start,
    textbook,
    two_towers,
)

Row = dict[str, Any]
MAX_SLOW_ROUNDS = 3  # rounds of measurements that take many seconds


class BenchmarkPlan(NamedTuple):
    """What to measure.

    Attributes:
      groups: numbers of the cases.
      rounds: samples of each side.
      threads: number of threads of this process.
      methods: gradient methods of case 2.
      tasks: numbers of tasks of case 2.
      memory: {side: command} of a process that measures its memory, to be followed by the name of
        the case; {} measures none.
    """

    groups: Sequence[int]
    rounds: int
    threads: int
    methods: Sequence[str]
    tasks: Sequence[int]
    memory: dict[str, list[str]]


def has_torch() -> bool:
    """Returns whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def list_step_cases(methods: Sequence[str], tasks: Sequence[int]) -> list[Case]:
    """Lists cases 1 to 5, and 9."""
    return [
        *textbook.list_cases(),
        *lenet.list_cases(methods, tasks),
        *av_mnist.list_cases(),
        *polyglot.list_cases(),
        *cross_modal.list_cases(),
        *two_towers.list_cases(),
    ]


def measure_all(plan: BenchmarkPlan) -> Iterator[Row]:
    """Yields a row of the machine, then one per case; the row of a failed case has the error."""
    if has_torch():
        import torch

        torch.set_num_threads(plan.threads)
    roof = roofline.measure_roof(plan.rounds)
    device = jax.devices()[0]
    named = {"kind": "roof", "device": device.device_kind, "platform": device.platform}
    yield named | {"threads": plan.threads, **roof._asdict(), "torch": has_torch()}
    for group, name, measure in iterate_measurements(plan, roof):
        try:
            measured = measure()
        except Exception as error:  # the other cases are still measured
            traceback.print_exc(file=sys.stderr)
            measured = {"kind": "failed", "error": f"{type(error).__name__}: {error}"}
        yield {"group": group, "case": name, "threads": plan.threads, **measured}
        jax.clear_caches()
        gc.collect()


def iterate_measurements(
    plan: BenchmarkPlan, roof: roofline.Roof
) -> Iterator[tuple[int, str, Callable[[], Row]]]:
    """Yields (group, name, function that measures it) of every selected case."""
    for case in list_step_cases(plan.methods, plan.tasks):
        if case.group in plan.groups:
            yield case.group, case.name, lambda case=case: measure_step(case, plan, roof)
    if 6 in plan.groups:
        yield 6, "MultiMNIST epoch, batch 256", lambda: measure_epoch(plan)
    if 7 in plan.groups:
        for name, make in seeds.list_cases():
            yield 7, name, lambda make=make: measure_seeds(make, plan)
    if 8 in plan.groups:
        yield 8, "polyglot_digits, to the first step", lambda: measure_start(plan)


def measure_step(case: Case, plan: BenchmarkPlan, roof: roofline.Roof) -> Row:
    """Measures a training step on both sides."""
    ours = case.make_mmjax()
    make = compiled.make_init(ours)
    single, cost = compiled.compile_single_step(ours, make)
    runs: dict[str, RunSteps] = {"single": single}
    if has_torch():
        runs["torch"] = case.make_torch(ours.batches)
    runs["scanned"] = compiled.compile_scanned_steps(ours, make)
    seconds = timing.time_in_turns(runs, plan.rounds, unit=len(ours.batches))
    reached = roofline.compute_share(
        roof, cost.flops, cost.bytes, statistics.median(seconds["single"])
    )
    row: Row = {
        "kind": "step",
        "bound": case.bound,
        **{f"{side}_ms": timing.compute_median_ms(s) for side, s in seconds.items()},
        "scanned_over_single": timing.compute_median_ratio(seconds["scanned"], seconds["single"]),
        "flops": cost.flops,
        "bytes": cost.bytes,
        "share_of_rate": reached.flops,
        "share_of_bandwidth": reached.bytes,
        "compiled_mb": cost.memory / 1e6,
        "seconds": seconds,
    }
    if has_torch():
        for side in ("single", "scanned"):
            row[f"torch_over_{side}"] = timing.compute_median_ratio(seconds["torch"], seconds[side])
    if case.memory and plan.memory:
        row["memory"] = {
            side: memory.measure_in_process([*command, case.name])
            for side, command in plan.memory.items()
            if side == "mmjax" or has_torch()
        }
    return row


def measure_epoch(plan: BenchmarkPlan) -> Row:
    """Measures an epoch on both sides."""
    data = epoch.load_data()
    rounds = min(plan.rounds, MAX_SLOW_ROUNDS)
    runs = {"single": epoch.make_mmjax_epoch(data, rounds + 1)}
    if has_torch():
        runs["torch"] = epoch.make_torch_epoch(data)
    times: timing.Seconds = {side: [] for side in runs}
    for _ in range(rounds + 1):  # the first round compiles and is not counted
        for side, run in runs.items():
            times[side].append(timing.time_steps(lambda _, run=run: run(), 1))
    times = {side: s[1:] for side, s in times.items()}
    row: Row = {"kind": "epoch", "mmjax_s": statistics.median(times["single"]), "seconds": times}
    row["data"] = data.name
    if has_torch():
        row["torch_s"] = statistics.median(times["torch"])
        row["torch_over_mmjax"] = timing.compute_median_ratio(times["torch"], times["single"])
    return row


def measure_seeds(make: Callable[[], MmjaxSide], plan: BenchmarkPlan) -> Row:
    """Measures five seeds against one."""
    ours = make()
    runs = {"one": seeds.make_seeds_run(ours, 1), "five": seeds.make_seeds_run(ours, seeds.SEEDS)}
    times = timing.time_in_turns(runs, plan.rounds)
    medians = {f"{side}_ms": timing.compute_median_ms(s) for side, s in times.items()}
    return {
        "kind": "seeds",
        **medians,
        "five_over_one": timing.compute_median_ratio(times["five"], times["one"]),
    }


def measure_start(plan: BenchmarkPlan) -> Row:
    """Measures a cold and a warm start."""
    cold, warm = zip(
        *start.time_cold_and_warm_starts(min(plan.rounds, MAX_SLOW_ROUNDS)), strict=True
    )
    return {
        "kind": "start",
        "cold_s": statistics.median(cold),
        "warm_s": statistics.median(warm),
    }
