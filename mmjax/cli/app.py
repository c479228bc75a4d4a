"""The commands.

    python experiments/mine.py --set epochs=20 --seeds 0 1 2
    mmjax run experiments/mine.py --help
    mmjax run experiments/mine.py --summary
    mmjax run --from-run DIR
    mmjax evaluate DIR
    mmjax ablate experiments/study.py
    mmjax report DIR
    mmjax show DIR
    mmjax compare DIR DIR
    mmjax data prepare NAME
    mmjax data describe NAME

An experiment file ends with

    if __name__ == "__main__":
        cli.main(experiment)
"""

import argparse
import functools
import gc
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax import config as configs
from mmjax.cli import ablate, data, reports
from mmjax.cli import plan as plans
from mmjax.cli import workdir as workdirs
from mmjax.cli.failures import guarded
from mmjax.cli.interrupts import end_process, is_compiling, tell_how_to_resume
from mmjax.cli.options import add_data_options, add_run_options, add_shared_options
from mmjax.cli.plan import Plan
from mmjax.config import ConfigError, source, table
from mmjax.config.source import Arms, Source


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


def script(argv: Sequence[str] | None = None) -> None:
    """The console script `mmjax`."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        "mmjax", description="Runs, compares and reports experiments, and makes their data."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run_help = "train an experiment; --help shows its own paths, types and values"
    run_parser = commands.add_parser("run", help=run_help, add_help=False, allow_abbrev=False)
    run_parser.add_argument("target", nargs="?", metavar="FILE_OR_MODULE[:FUNCTION]")
    add_run_options(run_parser)
    again = commands.add_parser("evaluate", help="print a run's test results again")
    again.add_argument("run", type=Path, metavar="RUN_DIR")
    add_shared_options(again)
    ablate.add_command(commands)
    reports.add_commands(commands)
    add_data_commands(commands.add_parser("data", help="make a data set, or tell what it holds"))

    def action() -> None:
        options = parser.parse_args(argv)
        others = {
            "evaluate": evaluate,
            "ablate": ablate.action,
            "report": reports.report,
            "show": reports.show,
            "compare": reports.compare,
            "data": run_data,
        }
        if options.command in others:
            others[options.command](options)
        elif options.target is None and options.from_run is None and options.help:
            run_parser.print_help()
        else:
            run(plans.of_options(options), options, run_parser, shlex.join(["mmjax", *argv]))

    _exit(guarded(action))


def run_data(options: argparse.Namespace) -> None:
    """The commands `data prepare` and `data describe`."""
    data.describe(options) if options.action == "describe" else data.prepare(options)


def add_data_commands(parser: argparse.ArgumentParser) -> None:
    """The commands `data prepare` and `data describe`."""
    actions = parser.add_subparsers(dest="action", required=True)
    prepare = actions.add_parser("prepare", help="make a data set's files", allow_abbrev=False)
    describe_help = "print what a data set holds and draw examples, preparing it first if need be"
    describe = actions.add_parser("describe", help=describe_help, allow_abbrev=False)
    for action in (prepare, describe):
        add_data_options(action)
    out = "the picture of examples (default: NAME.png)"
    describe.add_argument("--out", type=Path, metavar="FILE", help=out)


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
    print(f"Work directory: {directory}", flush=True)
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
    checkpoint_every: Any,
) -> None:
    """Trains and tests every arm, each in its directory."""
    from mmjax.train.run import run as train_run

    train_run(
        dict(experiments),
        workdir=directory,
        seeds=seeds,
        resume=resuming,
        devices=devices,
        checkpoint_every=checkpoint_every,
    )


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
    print(plan.source.doc(), end="\n\n")
    print(parser.format_help())
    print("paths:")
    print(table.format_rows(configs.describe(plan.config)))


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
    if is_compiling():
        end_process(code)
    if code:
        sys.exit(code)
