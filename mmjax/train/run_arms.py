"""`run`: trains the arms of an experiment in one directory, from data to table."""

import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mmjax import files
from mmjax.data.spec import write_spec
from mmjax.experiment import Experiment
from mmjax.files.run_files import read_result_file
from mmjax.freezing import complete_variables
from mmjax.train.checkpoint import hash_arrays
from mmjax.train.fit_result import FitResult
from mmjax.train.hardware.devices import choose_devices
from mmjax.train.hardware.multihost import fetch_arrays, wait_for_all_processes
from mmjax.train.loop import TEN_MINUTES, fit
from mmjax.train.reporting import run_report
from mmjax.train.reporting.class_report import write_class_reports
from mmjax.types import Variables

ArmResult = dict[str, Any]


def run(
    experiments: Mapping[str, Callable[[], Experiment]],
    *,
    workdir: str | Path,
    seeds: Sequence[int] = (0,),
    devices: int | None = None,
    resume: bool = False,
    checkpoint_every: int | datetime.timedelta | None = TEN_MINUTES,
    checked: bool = False,
) -> dict[str, ArmResult]:
    """Trains and tests every arm, and writes the table, `summary.json` and the learning curves.

    If there are several processes, all of them train, and the first one writes.

    Args:
      experiments: {arm: function that makes its experiment}, called when the arm's turn comes.
      workdir: each arm has a directory of its own in it.
      seeds: trained in one program per arm.
      devices: number of devices, the first ones; None as `choose_devices` decides.
      resume: whether to keep finished arms, and to continue others from their last checkpoint.
      checkpoint_every: steps or time between checkpoints; see `fit`.
      checked: whether all experiments, and what a stored run was made with, are checked already.

    Returns:
      {arm: result}, as in `summary.json`.

    Raises:
      ValueError: if an arm's directory holds a run already and `resume` is False.
    """
    workdir = Path(workdir).expanduser()
    used = [workdir / arm for arm in experiments if (workdir / arm / "checkpoints").exists()]
    if used and not resume:
        raise ValueError(
            f"{used[0]} already holds a run; pass resume=True to continue it, or choose another "
            "workdir."
        )
    # Else the others could find the checkpoints of one that has begun to train.
    wait_for_all_processes("the arms are checked")
    is_first = not jax.process_index()
    with contextlib.ExitStack() as stack:
        if is_first:  # one lock for all processes of a distributed run
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock_directory(workdir))
        results = {}
        for arm, make in experiments.items():
            directory = workdir / arm
            result = read_or_set_aside_result(directory) if resume else None
            if result is None:
                result = _train_arm(
                    arm, make(), directory, seeds, devices, checkpoint_every, checked
                )
            results[arm] = result
        if is_first:
            run_report.write_run_report(workdir, results, seeds)
    return results


def _train_arm(
    arm: str,
    experiment: Experiment,
    directory: Path,
    seeds: Sequence[int],
    devices: int | None,
    checkpoint_every: int | datetime.timedelta | None,
    checked: bool,
) -> ArmResult:
    """Trains and tests one arm; the first process writes its files."""
    is_first = not jax.process_index()
    chosen = choose_devices(experiment, devices)
    directory.mkdir(parents=True, exist_ok=True)
    if is_first:
        run_report.print_arm(arm, experiment, seeds, chosen)
        model = experiment.model
        write_spec(directory, experiment.data, model.heads, model.encoders)
    fitted = fit(
        experiment,
        directory,
        seeds=seeds,
        devices=chosen,
        title=arm,
        checkpoint_every=checkpoint_every,
        checked=checked,
        allow_changes=checked,
    )
    result = make_arm_result(experiment, fitted, seeds)
    if is_first:
        write_class_reports(directory / "test", experiment.data.tasks, fitted.test_classes)
        files.write_json(directory / "result.json", result)
    return result


def read_or_set_aside_result(directory: Path) -> ArmResult | None:
    """Reads the stored result of an arm; None if there is none.

    A damaged result is set aside with a warning: it can be made again from the last checkpoint.
    """
    path = directory / "result.json"
    if not path.exists():
        return None
    try:
        return read_result_file(path)
    except files.DamagedFileError as error:
        aside = path if jax.process_index() else files.set_aside_damaged(path)
        logging.getLogger("mmjax").warning("%s It is kept as %s and made again.", error, aside.name)
        return None


def make_arm_result(
    experiment: Experiment,
    fitted: FitResult,
    seeds: Sequence[int],
    replicas: Sequence[int] | None = None,
) -> ArmResult:
    """Makes the stored result of one arm: what depends on the configuration alone, then the costs.

    The costs are the arm's share of the program's, whose replicas all run together; `step_seconds`
    and `peak_bytes` are those of one replica, `measured_peak_bytes` is that of the program.

    Args:
      experiment: the arm's experiment.
      fitted: the result of `fit`.
      seeds: the arm's seeds.
      replicas: indices of the arm's replicas in the program; by default all of them.
    """
    total = len(fitted.validation)
    replicas = range(total) if replicas is None else replicas
    state = fitted.state
    trees = (state.best_params, state.train.params, state.best_variables, state.best_raw)
    stacked, frozen = fetch_arrays((trees, fitted.frozen))
    by_seed = {}
    for seed, i in zip(seeds, replicas, strict=True):
        best, last, others, raw = jax.tree.map(lambda x, i=i: x[i], stacked)
        by_seed[str(seed)] = {
            "test": fitted.test[i] if fitted.test else {},
            "validation": fitted.validation[i],
            "best_step": int(state.best_step[i]),
            "steps": state.steps_done,
            "best_params_sha256": hash_arrays(best),
            "last_params_sha256": hash_arrays(last),
            **_digest_variables("best_variables", others),
            **_digest_variables("best_raw", raw),
        }
    params = jax.tree.map(lambda x: x[0], stacked[0])
    variables = complete_variables({"params": params}, frozen)
    return {
        "monitor": experiment.monitor,
        "seeds": by_seed,
        **_digest_variables("frozen", frozen or {}),
        "parameters": run_report.count_parameters(variables["params"]),
        "cost": {
            "seconds": fitted.seconds * len(replicas) / total,
            "first_dispatch_seconds": fitted.first_dispatch_seconds,
            "examples_per_second": fitted.examples_per_second * len(replicas) / total,
            "flops": fitted.flops,
            "step_seconds": fitted.step_seconds / total,
            "peak_bytes": fitted.peak_bytes,
            "measured_peak_bytes": fitted.measured_peak_bytes,
        },
    }


def _digest_variables(name: str, variables: Variables) -> dict[str, str]:
    """Returns the digest of variables, if there are any."""
    return {f"{name}_sha256": hash_arrays(variables)} if variables else {}
