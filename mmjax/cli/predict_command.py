"""`mmjax predict RUN --data FILE --out FILE`: predictions of a trained model."""

import argparse
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.printing.console import print_text


def add_predict_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "predict on the rows of a file with a trained model; no training data are needed"
    parser = commands.add_parser("predict", help=summary, allow_abbrev=False)
    options.add_trained_model_options(parser)
    add = parser.add_argument
    data = "the examples: .csv, .parquet or .npz; columns are named as in training"
    add("--data", type=Path, metavar="FILE", required=True, help=data)
    out = "the predictions: .csv, .parquet or .jsonl; columns that the model does not read are kept"
    add("--out", type=Path, metavar="FILE", required=True, help=out)
    embeddings = "add the representation of each task's input, as a list; with one seed"
    add("--embeddings", action="store_true", help=embeddings)
    size = "rows in memory at once (default: the run's eval_batch_size)"
    add("--batch-size", type=options.parse_positive_number, metavar="N", help=size)
    add("--overwrite", action="store_true", help="replace --out if it exists")
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def predict_on_file(arguments: argparse.Namespace) -> None:
    """Runs `mmjax predict`; refuses invalid input before anything is written."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.data.progress_bars import show_row_progress
    from mmjax.runs import load
    from mmjax.runs.prediction import prediction_files

    data, out = arguments.data.expanduser(), arguments.out.expanduser()
    prediction_files.check_output_path(out, data, overwrite=arguments.overwrite)
    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        trained = load.load(arguments.run, arguments.arm, arguments.seed)
    with show_row_progress(f"Predicting {data.name}", prediction_files.count_rows(data)) as advance:
        rows = prediction_files.predict_file(
            trained,
            data,
            out,
            embeddings=arguments.embeddings,
            batch_size=arguments.batch_size,
            overwrite=arguments.overwrite,
            advance=advance,
        )
    print_text(f"Predictions of {trained.describe_seeds()} for {rows:,} rows: {out}")
