"""`run`: the arms of an experiment from data to table, in one directory."""

import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mmjax import files
from mmjax.console import print_text
from mmjax.experiment import Experiment
from mmjax.runs.run_files import read_result
from mmjax.train import run_report
from mmjax.train.checkpoint import Checkpoints, digest
from mmjax.train.devices import choose_devices
from mmjax.train.loop import TEN_MINUTES, Fitted, fit
from mmjax.train.programs import LoopState, Programs
from mmjax.types import Params

Result = dict[str, Any]


def run(
    experiments: Mapping[str, Callable[[], Experiment]],
    *,
    workdir: Path,
    seeds: Sequence[int] = (0,),
    devices: int | None = None,
    resume: bool = False,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
) -> dict[str, Result]:
    """Trains and tests every arm, and writes the table, `summary.json` and the learning curves.

    Of several processes all train, and the first one writes.

    Args:
      experiments: {arm: function that makes its experiment}; each is called when its turn comes.
      workdir: each arm has a directory of its own in it.
      seeds: trained as one program in every arm.
      devices: how many devices to use, the first ones; None as `choose_devices` says.
      resume: whether finished arms are kept, and a begun one goes on from its last checkpoint.
      checkpoint_every: steps or time between checkpoints; see `fit`.

    Returns:
      {arm: result}, as in `summary.json`.

    Raises:
      ValueError: if an arm's directory holds a run already and `resume` is False.
    """
    used = [workdir / arm for arm in experiments if (workdir / arm / "checkpoints").exists()]
    if used and not resume:
        raise ValueError(
            f"{used[0]} already holds a run; pass resume=True to continue it, or choose another "
            "workdir."
        )
    with contextlib.ExitStack() as stack:
        if not jax.process_index():  # one lock for all processes of a distributed run
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock_directory(workdir))
        return _run(experiments, workdir, seeds, devices, checkpoint_every, resume=resume)


def _run(
    experiments: Mapping[str, Callable[[], Experiment]],
    workdir: Path,
    seeds: Sequence[int],
    devices: int | None,
    checkpoint_every: int | datetime.timedelta | None,
    *,
    resume: bool,
) -> dict[str, Result]:
    results = {}
    for arm, make in experiments.items():
        directory = workdir / arm
        stored = read_or_set_aside(directory) if resume else None
        if stored is None:
            experiment = make()
            chosen = choose_devices(experiment, devices)
            directory.mkdir(parents=True, exist_ok=True)
            if not jax.process_index():
                run_report.describe(arm, experiment, seeds, chosen)
            fitted = fit(
                experiment,
                directory,
                seeds=seeds,
                devices=chosen,
                title=arm,
                checkpoint_every=checkpoint_every,
            )
            stored = result(experiment, fitted, seeds)
            if not jax.process_index():
                files.write_json(directory / "result.json", stored)
        results[arm] = stored
    if jax.process_index():
        return results
    files.write_json(workdir / "summary.json", results, sealed=False)
    run_report.curves(workdir, list(experiments), seeds)
    rows = run_report.table(results)
    files.write_text(workdir / "table.md", run_report.markdown(rows))
    run_report.show(rows)
    print_text(f"Results: {workdir}")
    return results


def read_or_set_aside(directory: Path) -> Result | None:
    """Reads the result that an arm left; None if there is none.

    A damaged one is set aside with a warning: it can be made again from the last checkpoint.
    """
    path = directory / "result.json"
    if not path.exists():
        return None
    try:
        return read_result(path)
    except files.DamagedFileError as error:
        aside = path if jax.process_index() else files.set_aside(path)
        logging.getLogger("mmjax").warning("%s It is kept as %s and made again.", error, aside.name)
        return None


def result(
    experiment: Experiment,
    fitted: Fitted,
    seeds: Sequence[int],
    lanes: Sequence[int] | None = None,
) -> Result:
    """What is kept of one arm: figures that depend on the configuration alone, then the costs.

    Costs are shares of the program's: all its lanes run at once, so those of an arm cost what its
    share of the lanes does, and `step_seconds` and `peak_bytes` are those of one lane.

    Args:
      experiment: the arm's.
      fitted: what `fit` returned.
      seeds: the arm's seeds.
      lanes: which of the program's lanes these are; all of them by default.
    """
    every = len(fitted.validation)
    lanes = range(every) if lanes is None else lanes
    best = jax.device_get(fitted.state.best_params)
    last = jax.device_get(fitted.state.train.params)
    return {
        "monitor": experiment.monitor,
        "seeds": {
            str(seed): {
                "test": fitted.test[i] if fitted.test else {},
                "validation": fitted.validation[i],
                "best_step": int(fitted.state.best_step[i]),
                "steps": fitted.state.steps_done,
                "best_params_sha256": digest(jax.tree.map(lambda x, i=i: x[i], best)),
                "last_params_sha256": digest(jax.tree.map(lambda x, i=i: x[i], last)),
            }
            for seed, i in zip(seeds, lanes, strict=True)
        },
        "parameters": run_report.count_parameters(jax.tree.map(lambda x: x[0], best)),
        "cost": {
            "seconds": fitted.seconds * len(lanes) / every,
            "first_dispatch_seconds": fitted.first_dispatch_seconds,
            "examples_per_second": fitted.examples_per_second * len(lanes) / every,
            "flops": fitted.flops,
            "step_seconds": fitted.step_seconds / every,
            "peak_bytes": fitted.peak_bytes,
        },
    }


def load_best(experiment: Experiment, directory: Path, *, seeds: Sequence[int] = (0,)) -> Params:
    """The best parameters that a run left, with a leading axis of seeds, for `Model.apply`.

    Args:
      experiment: the experiment of the run.
      directory: the arm's directory.
      seeds: the run's seeds.

    Raises:
      ValueError: if the directory has no checkpoint.
    """
    return load(Programs(experiment, seeds, choose_devices(experiment, 1)), directory).best_params


def retest(
    experiment: Experiment, directory: Path, *, seeds: Sequence[int], devices: int | None = None
) -> list[dict[str, float]]:
    """Test metrics of the best parameters that a run left, one dictionary a seed.

    Args:
      experiment: the experiment of the run.
      directory: the arm's directory.
      seeds: the run's seeds.
      devices: how many devices to use; None as `choose_devices` says.

    Raises:
      ValueError: if the directory has no checkpoint.
    """
    programs = Programs(experiment, seeds, choose_devices(experiment, devices))
    return programs.evaluate(load(programs, directory).best_params, "test")


def load(programs: Programs, directory: Path) -> LoopState:
    """Reads the newest whole state that a run left, and changes nothing there."""
    state = None
    if (directory / "checkpoints").is_dir():
        checkpoints = Checkpoints(directory / "checkpoints")
        state = checkpoints.restore(programs.abstract_state, set_aside=False)
    if state is None:
        raise ValueError(f"{directory} has no checkpoint; train first, or name another run.")
    return state
