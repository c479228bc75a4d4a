"""Trains, summarizes and evaluates what a command names; see `mmjax.cli.commands`."""

import argparse
import contextlib
import gc
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmjax import config as configs
from mmjax import files, provenance
from mmjax.cli import request as plans
from mmjax.cli.failures import EPILOG, guarded
from mmjax.cli.options import add_run_options
from mmjax.cli.request import Plan
from mmjax.cli.resume_hints import end_command, tell_how_to_resume
from mmjax.cli.streams import protect_streams
from mmjax.config import ConfigError, config_table, experiment_source
from mmjax.config.experiment_source import Arms, Source
from mmjax.console import print_text
from mmjax.runs import workdir as workdirs


def main(experiment: Any, arms: Arms | None = None, argv: Sequence[str] | None = None) -> None:
    """Runs an experiment as the command line says. Call it at the end of an experiment's file.

    Args:
      experiment: a function under `auto_config`.
      arms: configuration -> {arm: configuration}, the variants that run beside it, such as
        `mmjax.config.single_modality`.
      argv: the arguments; by default those of this process.
    """
    protect_streams()
    argv = sys.argv[1:] if argv is None else argv
    program = f"python {sys.argv[0]}"
    parser = argparse.ArgumentParser(program, allow_abbrev=False, add_help=False, epilog=EPILOG)
    add_run_options(parser)

    def action() -> None:
        found = experiment_source.of_function(experiment, arms)
        options = parser.parse_args(argv)
        run(found, options, parser, shlex.join([*program.split(), *argv]))

    end_command(guarded(action))


def run(
    found: Source, options: argparse.Namespace, parser: argparse.ArgumentParser, command: str
) -> None:
    """Trains what the options ask for; whatever is wrong is refused before anything is written."""
    with contextlib.ExitStack() as stack:
        with plans.opening(options):
            plan = plans.make_plan(found, options)
            if options.help:
                return print_help(parser, plan)
            stored = plans.as_stored(plan)
            if options.summary:
                prepare_jax(options)
                return summarize(plans.build_arms(plan.arms, plan.config), options.devices)
            if options.resume and options.workdir is None:
                raise ConfigError("--resume needs --workdir DIR, the run to continue.")
            directory = options.workdir or workdirs.fresh(plan.source.name)
            resuming = workdirs.may_resume(directory, stored, found.module, resume=options.resume)
            prepare_jax(options)
            if resuming:
                stack.enter_context(workdirs.lock(directory))
            experiments = plans.build_arms(plan.arms, plan.config)
            record = describe_start(plan, experiments, options.devices, command)
        if resuming:
            allow = options.allow_changes
            provenance.check_unchanged(directory, record, found.module, allow=allow)
        start(directory, stored, plan, record, resuming=resuming)
        stack.enter_context(workdirs.lock(directory))
        print_text(f"Work directory: {directory}")
        with tell_how_to_resume(command, directory):
            train(
                experiments,
                directory,
                plan.seeds,
                resuming=resuming,
                devices=options.devices,
                checkpoint_every=options.checkpoint_every,
            )


def evaluate(options: argparse.Namespace) -> None:
    """Prints the test results of a run's best parameters again."""
    with plans.opening(options):
        arms, config = plans.of_run(options)
        prepare_jax(options)
        experiments = plans.build_arms(arms, config)
        check_experiments(experiments, options.devices)
    seeds = workdirs.read(options.run).seeds
    evaluate_run(experiments, options.run, seeds, devices=options.devices)


# The seams to the training code.


def check_experiments(
    experiments: Mapping[str, Callable[[], Any]], devices: int | None
) -> dict[str, int]:
    """Refuses experiments whose parts do not fit, before anything is compiled.

    Returns:
      {arm: number of devices that will train it}.
    """
    from mmjax.train.devices import choose_devices
    from mmjax.train.experiment_check import check

    used = {}
    for arm, make in experiments.items():
        experiment = make()
        used[arm] = len(choose_devices(experiment, devices))
        check(experiment, used[arm])
    return used


def summarize(experiments: Mapping[str, Callable[[], Any]], devices: int | None) -> None:
    """Prints the model of every arm; nothing is compiled or written."""
    from mmjax import summary

    check_experiments(experiments, devices)
    for arm, experiment in experiments.items():
        summary.show(summary.summarize(experiment()), arm)


def train(
    experiments: Mapping[str, Callable[[], Any]],
    directory: Path,
    seeds: Sequence[int],
    *,
    resuming: bool,
    devices: int | None,
    checkpoint_every: Any,
) -> None:
    """Trains and tests every arm, each in its directory."""
    from mmjax.train.run_arms import run as train_run

    train_run(
        dict(experiments),
        workdir=directory,
        seeds=seeds,
        resume=resuming,
        devices=devices,
        checkpoint_every=checkpoint_every,
        checked=True,
    )


def evaluate_run(
    experiments: Mapping[str, Callable[[], Any]],
    directory: Path,
    seeds: Sequence[int],
    *,
    devices: int | None,
) -> None:
    """Tests every arm's best parameters."""
    from mmjax.train import run_report
    from mmjax.train.run_arms import retest

    tests = {
        arm: retest(make(), directory / arm, seeds=seeds, devices=devices, checked=True)
        for arm, make in experiments.items()
    }
    run_report.show(run_report.metric_table(tests))


def print_help(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """The experiment's own words, the options, and every path with its type and value."""
    print_text(plan.source.doc() + "\n")
    print(parser.format_help())
    print("paths:")
    print_text(config_table.format_rows(configs.describe(plan.config)))


def describe_start(
    plan: Plan,
    experiments: Mapping[str, Callable[[], Any]],
    devices: int | None,
    command: str,
) -> dict[str, Any]:
    """Checks the experiments, and makes the provenance record of this start.

    The data are hashed meanwhile, by a thread.
    """
    made = {arm: make() for arm, make in experiments.items()}
    with ThreadPoolExecutor(1) as another:
        data = another.submit(
            provenance.digest_data, {arm: getattr(e, "data", None) for arm, e in made.items()}
        )
        used = check_experiments(experiments, devices)
        code = provenance.digest_code(plan.source.module)
        digests = data.result()
    module = plan.source.module
    file = None if module is None else provenance.source_file(module)
    return provenance.record(command, file, code=code, data=digests, devices_used=used)


def start(
    directory: Path, run: workdirs.Run, plan: Plan, record: dict[str, Any], *, resuming: bool
) -> None:
    """Writes what makes the run into its directory; of several processes the first one does it."""
    import jax

    from mmjax.train.multihost import wait_for_all

    wait_for_all("the directory is checked")  # else the others could find a run there already
    if jax.process_index():
        return wait_for_all("the directory is written")
    if resuming:
        provenance.append(directory, record)
    else:
        shown = config_table.format_rows(configs.describe(plan.config))
        workdirs.write(directory, run, shown, plan.source.module, record)
    wait_for_all("the directory is written")


# JAX, which is asked only after all else is in order.


def prepare_jax(options: argparse.Namespace) -> None:
    """Opens the devices and the compilation cache.

    Tracing makes many objects that stay: looking for garbage as often as Python does by itself
    takes 0.3 s of the main job's start.

    Raises:
      ConfigError: there are fewer devices than were asked for.
    """
    import jax

    from mmjax.train.devices import open_cores

    gc.set_threshold(50_000)
    set_compilation_cache(options.compilation_cache)
    open_cores()
    if options.devices is not None and options.devices > jax.device_count():
        raise ConfigError(f"--devices {options.devices}: there is only {jax.device_count()}.")


def set_compilation_cache(directory: Path | None) -> None:
    """Keeps compiled programs on disk, so that the next start need not compile them again.

    Where the directory cannot be written to, it warns, and none are kept.
    """
    import jax

    if directory is not None and files.is_writable(directory):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    elif directory is not None:
        logging.getLogger("mmjax").warning(
            "%s cannot be written to, so compiled programs are not kept for the next start; choose "
            "another folder by --compilation-cache or MMJAX_CACHE.",
            directory,
        )
