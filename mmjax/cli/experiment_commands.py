"""Trains, summarizes and evaluates the experiment that a command names."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmjax import config as configs
from mmjax import loaded_code, provenance
from mmjax.cli import request as requests
from mmjax.cli.failures import EPILOG, guarded
from mmjax.cli.jax_setup import prepare_jax
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
        source = experiment_source.of_function(experiment, arms)
        options = parser.parse_args(argv)
        run(source, options, parser, shlex.join([*program.split(), *argv]))

    end_command(guarded(action))


def run(
    source: Source, options: argparse.Namespace, parser: argparse.ArgumentParser, command: str
) -> None:
    """Trains what the options ask for; refuses invalid input before anything is written."""
    with contextlib.ExitStack() as stack:
        with requests.opening(options):
            plan = requests.make_plan(source, options)
            if options.help:
                return print_help(parser, plan)
            stored = requests.as_stored(plan)
            if options.summary:
                prepare_jax(options)
                return summarize(requests.build_arms(plan.arms, plan.config), options.devices)
            if options.resume and options.workdir is None:
                raise ConfigError("--resume needs --workdir DIR, the run to continue.")
            directory = options.workdir or workdirs.fresh(plan.source.name)
            resuming = workdirs.may_resume(directory, stored, source.module, resume=options.resume)
            prepare_jax(options)
            # A new run has no directory yet; it is locked as soon as `_write_start` has made it.
            if resuming:
                stack.enter_context(workdirs.lock(directory))
            experiments = requests.build_arms(plan.arms, plan.config)
            record = describe_start(plan, experiments, options.devices, command)
        if resuming:
            allow = options.allow_changes
            provenance.check_unchanged(directory, record, source.module, allow=allow)
        start(directory, stored, plan, record, resuming=resuming)
        stack.enter_context(workdirs.lock(directory))
        print_text(f"Work directory: {directory}")
        from mmjax.train import run_arms

        with tell_how_to_resume(command, directory):
            run_arms.run(
                experiments,
                workdir=directory,
                seeds=plan.seeds,
                devices=options.devices,
                resume=resuming,
                checkpoint_every=options.checkpoint_every,
                checked=True,
            )


def evaluate(options: argparse.Namespace) -> None:
    """Prints the test results of a run's best parameters again."""
    with requests.opening(options):
        stored = workdirs.read(options.run)
        arms, config = requests.of_run(stored, options)
        prepare_jax(options)
        experiments = requests.build_arms(arms, config)
        check_experiments(experiments, options.devices)
    evaluate_run(experiments, options.run, stored.seeds, options.devices)


def evaluate_run(
    experiments: Mapping[str, Callable[[], Any]],
    directory: Path,
    seeds: Sequence[int],
    devices: int | None,
) -> None:
    """Evaluates every arm's best parameters on the test split, and prints the metrics."""
    from mmjax.train import run_arms, run_report

    tests = {}
    for arm, make in experiments.items():
        tests[arm] = run_arms.retest(
            make(), directory / arm, seeds=seeds, devices=devices, checked=True
        )
    run_report.show(run_report.metric_table(tests))


def check_experiments(
    experiments: Mapping[str, Callable[[], Any]], devices: int | None
) -> dict[str, int]:
    """Refuses experiments whose parts do not fit, before anything is compiled.

    Returns:
      {arm: number of devices that will train it}.
    """
    from mmjax.train.devices import choose_devices
    from mmjax.train.experiment_check import check

    device_counts = {}
    for arm, make in experiments.items():
        experiment = make()
        device_counts[arm] = len(choose_devices(experiment, devices))
        check(experiment, device_counts[arm])
    return device_counts


def summarize(experiments: Mapping[str, Callable[[], Any]], devices: int | None) -> None:
    """Prints the model of every arm; nothing is compiled or written."""
    from mmjax import summary

    check_experiments(experiments, devices)
    for arm, make in experiments.items():
        summary.show(summary.summarize(make()), arm)


def print_help(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """Prints the experiment's docstring, the options, and every path with its type and value."""
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
    """Checks the experiments, and makes the provenance record of this start."""
    data_sets = {arm: getattr(make(), "data", None) for arm, make in experiments.items()}
    with ThreadPoolExecutor(1) as thread:  # hashes the data during the checks
        data = thread.submit(provenance.digest_data, data_sets)
        device_counts = check_experiments(experiments, devices)
        code = provenance.digest_code(plan.source.module)
        digests = data.result()
    module = plan.source.module
    file = None if module is None else loaded_code.source_file(module)
    return provenance.record(command, file, code=code, data=digests, devices_used=device_counts)


def start(
    directory: Path, run: workdirs.Run, plan: Plan, record: dict[str, Any], *, resuming: bool
) -> None:
    """Writes the run's configuration and provenance; of several processes only the first does."""
    import jax

    from mmjax.train.multihost import wait_for_all

    wait_for_all("the directory is checked")  # else the others could find a run there already
    if jax.process_index():
        return wait_for_all("the directory is written")
    if resuming:
        provenance.append(directory, record)
    else:
        table = config_table.format_rows(configs.describe(plan.config))
        workdirs.write(directory, run, table, plan.source.module, record)
    wait_for_all("the directory is written")
