"""Trains, summarizes and evaluates what a command names; see `mmjax.cli.commands`."""

import argparse
import functools
import gc
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax import config as configs
from mmjax.cli import plan as plans
from mmjax.cli import workdir as workdirs
from mmjax.cli.failures import guarded
from mmjax.cli.options import add_run_options
from mmjax.cli.plan import Plan
from mmjax.config import ConfigError, source, table
from mmjax.config.source import Arms, Source
from mmjax.terminal import print_text


def main(experiment: Any, arms: Arms | None = None, argv: Sequence[str] | None = None) -> None:
    """Runs an experiment as the command line says. Call it at the end of an experiment's file.

    Args:
      experiment: a function under `auto_config`.
      arms: configuration -> {arm: configuration}, the variants that run beside it, such as
        `mmjax.config.single_modality`.
      argv: the arguments; by default those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    program = f"python {sys.argv[0]}"
    parser = argparse.ArgumentParser(program, allow_abbrev=False, add_help=False)
    add_run_options(parser)

    def action() -> None:
        found = source.of_function(experiment, arms)
        options = parser.parse_args(argv)
        run(found, options, parser, shlex.join([*program.split(), *argv]))

    _exit(guarded(action))


def run(
    found: Source, options: argparse.Namespace, parser: argparse.ArgumentParser, command: str
) -> None:
    """Trains what the options ask for; whatever is wrong is refused before anything is written."""
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
    experiments = plans.build_arms(plan.arms, plan.config)
    check_experiments(experiments, options.devices)
    start(directory, stored, plan, command, resuming=resuming)
    print_text(f"Work directory: {directory}")
    try:
        train(experiments, directory, plan.seeds, resuming=resuming, devices=options.devices)
    except KeyboardInterrupt:
        again = resume_command(command, directory)
        raise KeyboardInterrupt(f"Interrupted. To continue: {again}") from None


def evaluate(options: argparse.Namespace) -> None:
    """Prints the test results of a run's best parameters again."""
    stored = workdirs.read(options.run)
    own = plans.own_module(options.run, stored)
    load = functools.partial(configs.load, allow=options.allow, own=own)
    arms = {arm: load(text) for arm, text in stored.arms.items()}
    prepare_jax(options)
    experiments = plans.build_arms(arms, load(stored.config))
    evaluate_run(experiments, options.run, stored.seeds, devices=options.devices)


# The seams to the training code.


def check_experiments(experiments: Mapping[str, Callable[[], Any]], devices: int | None) -> None:
    """Refuses experiments whose parts do not fit, before anything is compiled."""
    from mmjax.train.devices import choose_devices
    from mmjax.train.programs import check

    for make in experiments.values():
        experiment = make()
        check(experiment, len(choose_devices(experiment, devices)))


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
) -> None:
    """Trains and tests every arm, each in its directory."""
    from mmjax.train.run import run as train_run

    train_run(dict(experiments), workdir=directory, seeds=seeds, resume=resuming, devices=devices)


def evaluate_run(
    experiments: Mapping[str, Callable[[], Any]],
    directory: Path,
    seeds: Sequence[int],
    *,
    devices: int | None,
) -> None:
    """Tests every arm's best parameters."""
    from mmjax.train import report
    from mmjax.train.run import retest

    tests = {
        arm: retest(make(), directory / arm, seeds=seeds, devices=devices)
        for arm, make in experiments.items()
    }
    report.show(report.metric_table(tests))


def print_help(parser: argparse.ArgumentParser, plan: Plan) -> None:
    """The experiment's own words, the options, and every path with its type and value."""
    print_text(plan.source.doc() + "\n")
    print(parser.format_help())
    print("paths:")
    print_text(table.format_rows(configs.describe(plan.config)))


def start(directory: Path, run: workdirs.Run, plan: Plan, command: str, *, resuming: bool) -> None:
    """Writes what makes the run into its directory."""
    from mmjax import provenance

    file = getattr(plan.source.module, "__file__", None)
    path = Path(file) if file else None
    record = provenance.record(command, path)
    if resuming:
        workdirs.note_resumption(directory, record)
    else:
        shown = table.format_rows(configs.describe(plan.config))
        workdirs.write(directory, run, shown, path, record)


def resume_command(command: str, directory: Path) -> str:
    """The command that continues a run."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == "--workdir" and words:
            words.pop(0)
        elif word != "--resume" and not word.startswith("--workdir="):
            kept.append(word)
    return shlex.join([*kept, "--resume", "--workdir", str(directory)])


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
    """Keeps compiled programs on disk, so that the next start need not compile them again."""
    import jax

    if directory is not None:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _exit(code: int) -> None:
    if code:
        sys.exit(code)
