"""`mmjax contribution RUN`: what every modality contributes to a trained model."""

import argparse
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.printing.console import print_paragraph, print_table, print_text


def add_contribution_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "measure what every modality contributes to a trained model, and what they interact"
    parser = commands.add_parser("contribution", help=summary, allow_abbrev=False)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN_DIR", help="directory of a run, a study, or one arm")
    add("--arm", metavar="NAME", help="arm of the run (default: the only one, or all)")
    seeds = "seeds, each of which is measured (default: all)"
    add("--seed", nargs="+", type=options.parse_natural_number, metavar="N", help=seeds)
    add("--split", default="test", metavar="NAME", help="split to evaluate (default: test)")
    metric = "metric, such as digit/accuracy; repeatable (default: the first of every task)"
    add("--metric", action="append", default=[], metavar="TASK/METRIC", help=metric)
    number: Any = {"type": options.parse_natural_number, "metavar": "N"}
    permutations = "permutations of each modality for the perceptual score (default: 5)"
    add("--permutations", **number, default=5, help=permutations)
    sample = "examples whose modalities are combined for EMAP, N² predictions (default: 256)"
    add("--sample", **number, default=256, help=sample)
    resamples = "bootstrap samples of the examples for the intervals (default: 200)"
    add("--resamples", **number, default=200, help=resamples)
    add("--no-probes", action="store_true", help="fit no linear probes of the encoders")
    out = "directory of the results (default: ARM/contribution)"
    add("--out", type=Path, metavar="DIR", help=out)
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def measure_stored_run(arguments: argparse.Namespace) -> None:
    """Runs `mmjax contribution`; the data set of the run is built."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.modalities.contribution import measure_run, write_contribution
    from mmjax.runs import load

    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        home = load.find_arm(arguments.run.expanduser(), arguments.arm)
        trained = load.load(arguments.run, arguments.arm, arguments.seed)
        measure_run.choose_metrics(trained, arguments.metric)  # refuses unknown ones first
        data = trained.experiment.data
    contribution = measure_run.measure_contribution(
        trained,
        data,
        split=arguments.split,
        metrics=arguments.metric,
        permutations=arguments.permutations,
        sample=arguments.sample,
        probes=not arguments.no_probes,
        resamples=arguments.resamples,
    )
    directory = (arguments.out or home.directory / "contribution").expanduser()
    write_contribution.write_contribution(directory, contribution)
    _print_contribution(contribution)
    print_text(f"Contributions of the modalities: {directory}")


def _print_contribution(contribution: Any) -> None:
    """Prints the tables of a contribution, and how to read them."""
    from mmjax.modalities.contribution import write_contribution

    print_table(write_contribution.make_contribution_rows(contribution))
    if rows := write_contribution.make_information_rows(contribution):
        print_table(rows, "Information of the classes predicted from one modality")
    for text in write_contribution.describe_contribution(contribution).split("\n\n"):
        print_paragraph(text)
