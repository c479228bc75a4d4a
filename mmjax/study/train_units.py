"""Trains units: as few programs as they allow, in smaller ones where memory is short.

A program trains in `programs/`, and each unit gets its own part of what comes out of it.
"""

import datetime
import functools
import shutil
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax import files
from mmjax.console import print_text
from mmjax.study.packing import Build, Lane, Unit, grouped, split, sweep
from mmjax.train import device_memory
from mmjax.train.checkpoint import Checkpoints, DiskFullError
from mmjax.train.devices import choose_devices
from mmjax.train.loop import Fitted, fit
from mmjax.train.run_arms import Result, read_or_set_aside, result


class Trainer(NamedTuple):
    """How units are trained.

    Attributes:
      programs: the directory of the programs' checkpoints while they train.
      build: makes experiments of configurations.
      own: the module of the base experiment's file.
      devices: where they train; None leaves it to `choose_devices`.
      most: most lanes a program; None leaves it to the memory.
      memory: bytes that a device can give; None is what it has.
      checkpoint_every: steps or time between checkpoints; see `mmjax.train.loop.fit`.
      show: what shows the progress of a program.
      ended: called with a unit when it is done or has failed.
    """

    programs: Path
    build: Build
    own: ModuleType | None
    devices: Sequence[jax.Device] | None
    most: int | None
    memory: int | None
    checkpoint_every: int | datetime.timedelta | None
    show: Callable[..., AbstractContextManager[Any]]
    ended: Callable[[Unit], None]


class Piece(NamedTuple):
    """A lane's place in what a program made."""

    fitted: Fitted
    place: int


def train(trainer: Trainer, units: Sequence[Unit], *, test: bool) -> None:
    """Trains all units that have no result yet; what fails is recorded, and the rest go on.

    Every unit's home then has a `result.json`, or an `error.txt` with the traceback.

    Raises:
      DiskFullError: nothing more can be recorded.
    """
    for unit in units:
        unit.home.mkdir(parents=True, exist_ok=True)
        read_or_set_aside(unit.home)  # sets a damaged one aside, so that it is made again
    for lanes in grouped(units, trainer.own):
        waiting = [unit for unit in units_of(lanes) if not is_done(unit)]
        if not waiting:
            continue
        if not place_of(trainer, lanes).exists():  # else programs go on as they were begun
            lanes = [lane for lane in lanes if not is_done(lane.unit)]
        directory = place_of(trainer, lanes)
        for unit in waiting:
            (unit.home / "error.txt").unlink(missing_ok=True)
        try:
            train_group(trainer, lanes, directory, test=test)
            shutil.rmtree(directory, ignore_errors=True)
        except DiskFullError:
            raise
        except Exception as error:
            for unit in waiting:
                if not is_done(unit):
                    fail(trainer, unit, error)


def place_of(trainer: Trainer, lanes: Sequence[Lane]) -> Path:
    """The directory of some lanes' programs."""
    return trainer.programs / f"{lanes[0].unit.home.name}-{len(lanes)}-lanes"


def is_done(unit: Unit) -> bool:
    """Whether a unit has its result."""
    return (unit.home / "result.json").exists()


def train_group(trainer: Trainer, lanes: Sequence[Lane], directory: Path, *, test: bool) -> None:
    """Trains lanes that can share a program, in several if need be.

    Args:
      trainer: how.
      lanes: the lanes.
      directory: where the programs' checkpoints go.
      test: whether the test split is looked at.
    """
    waiting = split(lanes, trainer.most)
    pieces: dict[tuple[Path, int], Piece] = {}
    while waiting:
        chunk = waiting.pop(0)
        if all(is_done(lane.unit) for lane in chunk):
            continue
        first = chunk[0]
        place = directory / f"{first.unit.home.name}-seed{first.seed}-{len(chunk)}-lanes"
        experiment = trainer.build(first.unit.config)
        devices = trainer.devices or choose_devices(experiment)
        limit = device_memory.available(devices) if trainer.memory is None else trainer.memory
        try:
            fitted = fit(
                experiment,
                place,
                seeds=[lane.seed for lane in chunk],
                devices=devices,
                sweep=sweep(chunk, experiment),
                title=first.unit.home.name,
                homes=[lane.unit.home for lane in chunk],
                test=test,
                memory=limit,
                checkpoint_every=trainer.checkpoint_every,
                show=functools.partial(trainer.show, lanes=len(chunk)),
            )
        except device_memory.MemoryShortError as error:
            if len(chunk) == 1:
                raise
            most = -(-len(chunk) // 2)
            print_text(f"{error} Its lanes train in programs of {most} at most.")
            shutil.rmtree(place, ignore_errors=True)
            waiting = split([*chunk, *(lane for rest in waiting for lane in rest)], most)
            continue
        pieces |= {lane_id(lane): Piece(fitted, i) for i, lane in enumerate(chunk)}
        for unit in units_of(chunk):
            mine = [pieces[i] for s in unit.seeds if (i := lane_id(Lane(unit, s))) in pieces]
            if len(mine) == len(unit.seeds) and not is_done(unit):
                finish(trainer, unit, mine, test=test)


def lane_id(lane: Lane) -> tuple[Path, int]:
    """What tells a lane from others."""
    return lane.unit.home, lane.seed


def units_of(lanes: Sequence[Lane]) -> list[Unit]:
    """The units of some lanes, each once."""
    return list({lane.unit.home: lane.unit for lane in lanes}.values())


def finish(trainer: Trainer, unit: Unit, pieces: Sequence[Piece], *, test: bool) -> None:
    """Writes what became of a unit all of whose lanes have ended."""
    for piece in pieces:
        if piece.place in piece.fitted.failed:
            return fail(trainer, unit, piece.fitted.failed[piece.place])
    experiment = trainer.build(unit.config)
    parts = [
        result(experiment, piece.fitted, [seed], [piece.place])
        for piece, seed in zip(pieces, unit.seeds, strict=True)
    ]
    if test:
        states = [jax.tree.map(lambda x, i=p.place: x[i], p.fitted.state) for p in pieces]
        states = [jax.device_put(state, jax.devices()[0]) for state in states]
        checkpoints = Checkpoints(unit.home / "checkpoints")
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
        checkpoints.save(max(p.fitted.state.steps_done for p in pieces), stacked)
        checkpoints.close()
    files.write_json(unit.home / "result.json", joined(parts))
    trainer.ended(unit)


def joined(parts: Sequence[Result]) -> Result:
    """The results of one unit's seeds as one."""
    costs = [part["cost"] for part in parts]
    means = {name: sum(c[name] for c in costs) / len(costs) for name in costs[0]}
    sums = {name: sum(c[name] for c in costs) for name in ("seconds", "examples_per_second")}
    seeds = {seed: one for part in parts for seed, one in part["seeds"].items()}
    return {**parts[0], "seeds": seeds, "cost": means | sums}


def fail(trainer: Trainer, unit: Unit, error: Exception) -> None:
    """Records why a unit has no result."""
    text = "".join(traceback.format_exception(error))
    files.write_text(unit.home / "error.txt", text)
    trainer.ended(unit)
