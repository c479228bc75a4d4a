"""The commands of `mmjax` and their options; a command's code is imported when it runs.

    python experiments/mine.py --set epochs=20 --seeds 0 1 2
    mmjax run experiments/mine.py --help
    mmjax run experiments/mine.py --summary
    mmjax run --from-run DIR
    mmjax evaluate DIR
    mmjax predict DIR --data new.csv --out predictions.csv
    mmjax export DIR --format onnx --out exported
    mmjax serve DIR
    mmjax contribution DIR
    mmjax robustness DIR
    mmjax calibration DIR
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
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmjax.cli import (
    ablate_command,
    calibration_command,
    contribution_command,
    export_command,
    predict_command,
    report_commands,
    robustness_command,
    serve_command,
)
from mmjax.cli.failures import EPILOG, run_and_report_errors
from mmjax.cli.options import (
    add_data_options,
    add_device_and_cache_options,
    add_run_options,
    add_trust_options,
)
from mmjax.cli.resume_hints import end_process
from mmjax.cli.streams import protect_streams


def script(argv: Sequence[str] | None = None) -> None:
    """Runs the console script `mmjax`: parses the arguments and calls the command."""
    protect_streams()
    argv = sys.argv[1:] if argv is None else argv
    parser, run_parser = _make_parsers()

    def action() -> None:
        options = parser.parse_args(argv)
        if options.command == "run":
            _run_experiment(options, run_parser, shlex.join(["mmjax", *argv]))
        else:
            _run_command(options)

    end_process(run_and_report_errors(action))


def _run_command(options: argparse.Namespace) -> None:
    """Runs any command but `mmjax run`."""
    # Looked up by name, since argparse has checked that the command exists.
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "ablate": ablate_command.ablate_study,
        "calibration": calibration_command.calibrate_stored_run,
        "compare": report_commands.compare_runs,
        "contribution": contribution_command.measure_stored_run,
        "data": _make_or_describe_data,
        "evaluate": _evaluate_stored_run,
        "export": export_command.export_stored_run,
        "predict": predict_command.predict_on_file,
        "report": report_commands.report_study,
        "robustness": robustness_command.measure_stored_run,
        "serve": serve_command.serve_stored_run,
        "show": report_commands.show_run,
    }
    commands[options.command](options)


def _make_or_describe_data(options: argparse.Namespace) -> None:
    from mmjax.cli import data_command

    if options.action == "describe":
        data_command.describe_data_set(options)
    else:
        data_command.prepare_data_set(options)


def _evaluate_stored_run(options: argparse.Namespace) -> None:
    from mmjax.cli import experiment_commands

    experiment_commands.evaluate_stored_run(options)


def _run_experiment(
    options: argparse.Namespace, parser: argparse.ArgumentParser, command: str
) -> None:
    """Runs `mmjax run`, or prints its help if no experiment is named, whose paths it would list."""
    if options.help and options.target is None and options.from_run is None:
        return parser.print_help()
    from mmjax.cli import experiment_commands, request

    from_run = request.read_run_of_options(options)
    source = request.find_source(options, from_run)
    experiment_commands.run_experiment(source, from_run, options, parser, command)


def _make_parsers() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Makes the parser of all commands, and that of `mmjax run`, whose help is the experiment's."""
    description = "Runs, compares and reports experiments, and makes their data."
    parser = argparse.ArgumentParser("mmjax", description=description, epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = _add_run_command(commands)
    _add_evaluate_command(commands)
    predict_command.add_predict_command(commands)
    export_command.add_export_command(commands)
    serve_command.add_serve_command(commands)
    contribution_command.add_contribution_command(commands)
    robustness_command.add_robustness_command(commands)
    calibration_command.add_calibration_command(commands)
    ablate_command.add_ablate_command(commands)
    report_commands.add_report_commands(commands)
    _add_data_commands(commands.add_parser("data", help="make a data set, or describe it"))
    return parser, run_parser


def _add_run_command(commands: Any) -> argparse.ArgumentParser:
    """Adds `mmjax run` and returns its parser."""
    summary = "train an experiment; --help shows its own paths, types and values"
    parser: argparse.ArgumentParser = commands.add_parser(
        "run", help=summary, add_help=False, allow_abbrev=False, epilog=EPILOG
    )
    parser.add_argument("target", nargs="?", metavar="FILE_OR_MODULE[:FUNCTION]")
    add_run_options(parser)
    return parser


def _add_evaluate_command(commands: Any) -> None:
    """Adds `mmjax evaluate`."""
    parser = commands.add_parser("evaluate", help="print a run's test results again")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    own_file = "your own file of the run's experiment, to be used instead of the stored copy"
    parser.add_argument("--experiment", metavar="FILE_OR_MODULE[:FUNCTION]", help=own_file)
    add_trust_options(parser)
    add_device_and_cache_options(parser)


def _add_data_commands(parser: argparse.ArgumentParser) -> None:
    """Adds the commands `data prepare` and `data describe`."""
    actions = parser.add_subparsers(dest="action", required=True)
    prepare = actions.add_parser("prepare", help="make the files of a data set", allow_abbrev=False)
    describe_help = "describe a data set and draw examples, preparing it first if necessary"
    describe = actions.add_parser("describe", help=describe_help, allow_abbrev=False)
    for action in (prepare, describe):
        add_data_options(action)
    out = "path of the figure of examples (default: NAME.png)"
    describe.add_argument("--out", type=Path, metavar="FILE", help=out)
