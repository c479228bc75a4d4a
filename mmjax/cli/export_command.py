"""`mmjax export RUN --format FORMAT --out DIR`: a trained model that runs without mmjax."""

import argparse
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.printing.console import print_text


def add_export_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "export a trained model, with its spec and its model card; no data are needed"
    parser = commands.add_parser("export", help=summary, allow_abbrev=False)
    options.add_trained_model_options(parser)
    add = parser.add_argument
    formats = "jax: JAX alone runs it on CPU, GPU and TPU; onnx: ONNX Runtime and others run it"
    add("--format", choices=("jax", "onnx"), required=True, help=formats)
    add("--out", type=Path, metavar="DIR", required=True, help="the directory to make")
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def export_stored_run(arguments: argparse.Namespace) -> None:
    """Runs `mmjax export`; refuses invalid input before anything is written."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.export.export_directory import check_export_arguments, export_run

    out = arguments.out.expanduser()
    check_export_arguments(out, arguments.format)
    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        trained = export_run(
            arguments.run, out, arguments.format, arm=arguments.arm, seed=arguments.seed
        )
    print_text(f"{trained.describe_seeds().capitalize()} as {arguments.format}: {out}")
