"""All cases at one number of threads, in one process; a row each."""

import gc
import importlib.util
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from versus import compiled, memory, roofline, timing
from versus.case import Case, Ours, Run
from versus.cases import (
    av_mnist,
    cross_modal,
    epoch,
    lenet,
    polyglot,
    seeds,
    start,
    textbook,
)

Row = dict[str, Any]
SUFFICIENT = 3  # rounds of what takes many seconds


class Plan(NamedTuple):
    """What to measure.

    Attributes:
      groups: numbers of the cases.
      rounds: samples of each side.
      threads: how many this process may use.
      methods: gradient methods of case 2.
      tasks: numbers of tasks of case 2.
      memory: {side: command} of a process that tells its memory, the case's name to follow; {}
        where it is not to be measured.
    """

    groups: Sequence[int]
    rounds: int
    threads: int
    methods: Sequence[str]
    tasks: Sequence[int]
    memory: dict[str, list[str]]


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def step_cases(methods: Sequence[str], tasks: Sequence[int]) -> list[Case]:
    """Cases 1 to 5."""
    return [
        *textbook.cases(),
        *lenet.cases(methods, tasks),
        *av_mnist.cases(),
        *polyglot.cases(),
        *cross_modal.cases(),
    ]


def rows(plan: Plan) -> Iterator[Row]:
    """A row for the machine, then one for every case; a case that fails says why."""
    if has_torch():
        import torch

        torch.set_num_threads(plan.threads)
    roof = roofline.measure(plan.rounds)
    device = jax.devices()[0]
    named = {"kind": "roof", "device": device.device_kind, "platform": device.platform}
    yield named | {"threads": plan.threads, **roof._asdict(), "torch": has_torch()}
    for group, name, measure in measurements(plan, roof):
        try:
            found = measure()
        except Exception as error:  # the others are still worth their time
            traceback.print_exc(file=sys.stderr)
            found = {"kind": "failed", "error": f"{type(error).__name__}: {error}"}
        yield {"group": group, "case": name, "threads": plan.threads, **found}
        jax.clear_caches()
        gc.collect()


def measurements(plan: Plan, roof: roofline.Roof) -> Iterator[tuple[int, str, Callable[[], Row]]]:
    """(group, name, what measures it) of everything that is asked for."""
    for case in step_cases(plan.methods, plan.tasks):
        if case.group in plan.groups:
            yield case.group, case.name, lambda case=case: step_row(case, plan, roof)
    if 6 in plan.groups:
        yield 6, "MultiMNIST epoch, batch 256", lambda: epoch_row(plan)
    if 7 in plan.groups:
        for name, make in seeds.cases():
            yield 7, name, lambda make=make: seeds_row(make, plan)
    if 8 in plan.groups:
        yield 8, "polyglot_digits, to the first step", lambda: start_row(plan)


def step_row(case: Case, plan: Plan, roof: roofline.Roof) -> Row:
    """Both sides of a training step."""
    ours = case.ours()
    make = compiled.initial(ours)
    single, cost = compiled.single(ours, make)
    runs: dict[str, Run] = {"single": single}
    if has_torch():
        runs["torch"] = case.plain(ours.batches)
    runs["scanned"] = compiled.scanned(ours, make)
    seconds = timing.alternate(runs, plan.rounds)
    reached = roofline.share(roof, cost.flops, cost.bytes, statistics.median(seconds["single"]))
    row: Row = {
        "kind": "step",
        "bound": case.bound,
        **{f"{side}_ms": timing.median_ms(s) for side, s in seconds.items()},
        "scanned_over_single": timing.ratio(seconds["scanned"], seconds["single"]),
        "flops": cost.flops,
        "bytes": cost.bytes,
        "share_of_rate": reached.flops,
        "share_of_bandwidth": reached.bytes,
        "compiled_mb": cost.memory / 1e6,
        "seconds": seconds,
    }
    if has_torch():
        for side in ("single", "scanned"):
            row[f"torch_over_{side}"] = timing.ratio(seconds["torch"], seconds[side])
    if case.memory and plan.memory:
        row["memory"] = {
            side: memory.of_process([*command, case.name])
            for side, command in plan.memory.items()
            if side == "mmjax" or has_torch()
        }
    return row


def epoch_row(plan: Plan) -> Row:
    """Both sides of an epoch."""
    data = epoch.data()
    rounds = min(plan.rounds, SUFFICIENT)
    runs = {"single": epoch.ours(data, rounds + 1)}
    if has_torch():
        runs["torch"] = epoch.plain(data)
    times: timing.Seconds = {side: [] for side in runs}
    for _ in range(rounds + 1):  # the first one compiles
        for side, run in runs.items():
            times[side].append(timing.timed(lambda _, run=run: run(), 1))
    times = {side: s[1:] for side, s in times.items()}
    row: Row = {"kind": "epoch", "mmjax_s": statistics.median(times["single"]), "seconds": times}
    row["data"] = data.name
    if has_torch():
        row["torch_s"] = statistics.median(times["torch"])
        row["torch_over_mmjax"] = timing.ratio(times["torch"], times["single"])
    return row


def seeds_row(make: Callable[[], Ours], plan: Plan) -> Row:
    """Five seeds against one."""
    ours = make()
    runs = {"one": seeds.several(ours, 1), "five": seeds.several(ours, seeds.SEEDS)}
    times = timing.alternate(runs, plan.rounds)
    found = {f"{side}_ms": timing.median_ms(s) for side, s in times.items()}
    return {"kind": "seeds", **found, "five_over_one": timing.ratio(times["five"], times["one"])}


def start_row(plan: Plan) -> Row:
    """A cold and a warm start."""
    cold, warm = zip(*start.cold_and_warm(min(plan.rounds, SUFFICIENT)), strict=True)
    return {
        "kind": "start",
        "cold_s": statistics.median(cold),
        "warm_s": statistics.median(warm),
    }
