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
from mmjax.cli.failures import EPILOG, run_and_report_errors
from mmjax.cli.jax_setup import check_process_options, set_up_jax
from mmjax.cli.options import add_run_options
from mmjax.cli.request import RunRequest
from mmjax.cli.resume_hints import add_resume_hint, end_process
from mmjax.cli.streams import protect_streams
from mmjax.config import ConfigError, config_table, experiment_source
from mmjax.config.experiment_source import ArmsFunction, ExperimentSource
from mmjax.printing.console import print_text
from mmjax.runs import more_epochs
from mmjax.runs import workdir as workdirs


def main(
    experiment: Any, arms: ArmsFunction | None = None, argv: Sequence[str] | None = None
) -> None:
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
        source = experiment_source.make_source(experiment, arms)
        options = parser.parse_args(argv)
        from_run = requests.read_run_of_options(options)
        command = shlex.join([*program.split(), *argv])
        run_experiment(source, from_run, options, parser, command)

    end_process(run_and_report_errors(action))


def run_experiment(
    source: ExperimentSource,
    from_run: workdirs.StoredRun | None,
    options: argparse.Namespace,
    parser: argparse.ArgumentParser,
    command: str,
) -> None:
    """Trains the requested arms and seeds; refuses invalid input before writing anything.

    Args:
      source: where the experiment comes from.
      from_run: the stored run whose configuration it takes, see `read_run_of_options`.
      options: the parsed command line.
      parser: prints the help that is common to all experiments.
      command: the command line, for the record and for hints.
    """
    with contextlib.ExitStack() as stack:
        with requests.open_run_with_options(options):
            plan = requests.make_run_request(source, from_run, options)
            if options.help:
                return _print_help(parser, plan)
            stored = requests.make_stored_run(plan)
            if options.summary:
                set_up_jax(options)
                experiments = requests.build_experiments(plan.arms, plan.config)
                return _print_summaries(experiments, plan.seeds, options.devices)
            if options.resume and options.workdir is None:
                raise ConfigError("--resume needs --workdir DIR, the run to continue.")
            check_process_options(options)
            directory = options.workdir or workdirs.choose_new_directory(plan.source.name)
            resuming = workdirs.may_resume(directory, stored, source.module, resume=options.resume)
            set_up_jax(options)
            # A new run has no directory yet; it is locked as soon as `_write_start` has made it.
            if resuming:
                stack.enter_context(workdirs.lock_run_directory(directory))
            experiments = requests.build_experiments(plan.arms, plan.config)
            record = _make_start_record(plan, experiments, options.devices, command)
        if resuming:
            allow = options.allow_changes
            provenance.check_unchanged(directory, record, source.module, allow=allow)
        _write_start(directory, stored, plan, record, resuming=resuming)
        stack.enter_context(workdirs.lock_run_directory(directory))
        print_text(f"Work directory: {directory}")
        from mmjax.train import run_arms

        with add_resume_hint(command, directory):
            run_arms.run(
                experiments,
                workdir=directory,
                seeds=plan.seeds,
                devices=options.devices,
                resume=resuming,
                checkpoint_every=options.checkpoint_every,
                checked=True,
            )
        if options.predictions:
            _write_predictions(experiments, directory, plan.seeds)


def _write_predictions(
    experiments: Mapping[str, Callable[[], Any]], directory: Path, seeds: Sequence[int]
) -> None:
    """Stores the test predictions of every arm; of several processes only the first does."""
    import jax

    from mmjax.runs.prediction.prediction_files import write_test_predictions

    if not jax.process_index():
        for arm, make in experiments.items():
            write_test_predictions(make(), directory / arm, seeds)


def evaluate_stored_run(options: argparse.Namespace) -> None:
    """Prints the test results of a run's best parameters again."""
    with requests.open_run_with_options(options):
        stored = workdirs.read_stored_run(options.run)
        arms, config = requests.load_configs_to_evaluate(stored, options)
        set_up_jax(options)
        experiments = requests.build_experiments(arms, config)
        requests.check_experiments(experiments, options.devices)
    evaluate_run(experiments, options.run, stored.seeds, options.devices)


def evaluate_run(
    experiments: Mapping[str, Callable[[], Any]],
    directory: Path,
    seeds: Sequence[int],
    devices: int | None,
) -> None:
    """Evaluates every arm's best parameters on the test split, and prints the metrics."""
    from mmjax.train.best_variables import evaluate_best
    from mmjax.train.reporting import run_report

    tests = {}
    for arm, make in experiments.items():
        tests[arm] = evaluate_best(
            make(), directory / arm, seeds=seeds, devices=devices, checked=True
        )
    run_report.print_result_table(run_report.make_metric_rows(tests))


def _print_summaries(
    experiments: Mapping[str, Callable[[], Any]], seeds: Sequence[int], devices: int | None
) -> None:
    """Prints the model and the memory of every arm; nothing runs or is written."""
    from mmjax import summary
    from mmjax.train.hardware.devices import choose_devices
    from mmjax.train.memory_estimate import estimate_memory, print_memory
    from mmjax.train.programs import Programs

    requests.check_experiments(experiments, devices)
    for arm, make in experiments.items():
        experiment = make()
        summary.print_summary(summary.summarize_experiment(experiment), arm)
        programs = Programs(experiment, seeds, choose_devices(experiment, devices), checked=True)
        print_memory(estimate_memory(programs), f"Memory of {arm}", programs.devices)


def _print_help(parser: argparse.ArgumentParser, plan: RunRequest) -> None:
    """Prints the experiment's docstring, the options, and every path with its type and value."""
    print_text(plan.source.doc() + "\n")
    print(parser.format_help())
    print("paths:")
    print_text(config_table.format_config_rows(configs.list_config_rows(plan.config)))


def _make_start_record(
    plan: RunRequest,
    experiments: Mapping[str, Callable[[], Any]],
    devices: int | None,
    command: str,
) -> dict[str, Any]:
    """Checks the experiments, and makes the provenance record of this start."""
    made = {arm: make() for arm, make in experiments.items()}
    data_sets = {arm: getattr(experiment, "data", None) for arm, experiment in made.items()}
    module = plan.source.module
    file = None if module is None else loaded_code.find_source_file(module)
    with ThreadPoolExecutor(1) as thread:  # hashes the data and waits for git during the checks
        data = thread.submit(provenance.digest_data, data_sets)
        git = thread.submit(provenance.read_git_state, file)
        device_counts = requests.check_experiments(experiments, devices)
        inits = {arm: getattr(experiment, "init", {}) for arm, experiment in made.items()}
        return provenance.make_record(
            command,
            git=git.result(),
            code=provenance.digest_code(module),
            data=data.result(),
            weights=provenance.digest_weights(inits),
            devices_used=device_counts,
        )


def _write_start(
    directory: Path,
    run: workdirs.StoredRun,
    plan: RunRequest,
    record: dict[str, Any],
    *,
    resuming: bool,
) -> None:
    """Writes the run's configuration and provenance; of several processes only the first does."""
    import jax

    from mmjax.train.hardware.multihost import wait_for_all_processes

    # Else the others could find a run there already.
    wait_for_all_processes("the directory is checked")
    if jax.process_index():
        return wait_for_all_processes("the directory is written")
    table = config_table.format_config_rows(configs.list_config_rows(plan.config))
    if resuming:
        stored = workdirs.read_stored_run(directory)
        more_epochs.store_more_epochs(directory, run.arms, run.config, table, stored.arms)
        provenance.append_record(directory, record)
    else:
        workdirs.write_run(directory, run, table, plan.source.module, record)
    wait_for_all_processes("the directory is written")
