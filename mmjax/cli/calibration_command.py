"""`mmjax calibration RUN`: what a trained model knows of its errors, by subset of modalities."""

import argparse
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.printing.console import print_paragraph, print_text


def add_calibration_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "measure the calibration of a trained model from every subset of its modalities"
    parser = commands.add_parser("calibration", help=summary, allow_abbrev=False)
    options.add_trained_model_options(parser)
    add = parser.add_argument
    add("--split", default="test", metavar="NAME", help="the split to measure (default: test)")
    out = "directory of the results (default: calibration in the directory of the arm)"
    add("--out", type=Path, metavar="DIR", help=out)
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def calibrate_stored_run(arguments: argparse.Namespace) -> None:
    """Runs `mmjax calibration`."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.modalities.robustness.calibration_by_subset import measure_calibration
    from mmjax.modalities.robustness.write_calibration import write_calibration
    from mmjax.runs import load

    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        trained = load.load(arguments.run, arguments.arm, arguments.seed)
        data = trained.experiment.data
    calibrations = measure_calibration(trained, data, split=arguments.split)
    home = load.find_arm(arguments.run.expanduser(), arguments.arm).directory
    directory = arguments.out or home / "calibration"
    print_paragraph(write_calibration(directory, calibrations))
    print_text(f"Table, figures and numbers: {directory}")
