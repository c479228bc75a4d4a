"""`mmjax robustness RUN`: the metrics of a trained model under corruptions of its inputs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.cli import options
from mmjax.printing.console import print_paragraph, print_text


def add_robustness_command(commands: Any) -> None:
    """Adds the command to those of `mmjax`."""
    summary = "measure a trained model under corruptions and missing modalities"
    parser = commands.add_parser("robustness", help=summary, allow_abbrev=False)
    options.add_trained_model_options(parser)
    add = parser.add_argument
    add("--split", default="test", metavar="NAME", help="the split to corrupt (default: test)")
    levels = "levels, rising from 0 to at most 1 (default: 0 0.25 0.5 0.75 1)"
    default = [0.0, 0.25, 0.5, 0.75, 1.0]
    add("--levels", nargs="+", type=float, metavar="LEVEL", default=default, help=levels)
    corruptions = "corruptions, such as noise or missing (default: all of each kind of input)"
    add("--corruptions", nargs="+", metavar="NAME", help=corruptions)
    add("--modalities", nargs="+", metavar="NAME", help="modalities to corrupt (default: all)")
    kinds = "kind of a modality's input, instead of the inferred one, such as audio=series"
    add("--kinds", nargs="+", metavar="NAME=KIND", default=[], help=kinds)
    groups = "modalities of one sensor, corrupted together, such as wrist=acceleration+rotation"
    add("--groups", nargs="+", metavar="NAME=MODALITY+MODALITY", default=[], help=groups)
    baseline = "directory of a run or an arm to compare with, such as one of late fusion"
    add("--baseline", type=Path, metavar="RUN_DIR", help=baseline)
    draws = "draws of every corruption, which are averaged (default: 1)"
    draws_type = options.parse_positive_number
    add("--seeds-of-corruption", type=draws_type, metavar="N", default=1, help=draws)
    out = "directory of the results (default: robustness in the directory of the arm)"
    add("--out", type=Path, metavar="DIR", help=out)
    options.add_trust_options(parser)
    options.add_cache_options(parser)


def measure_stored_run(arguments: argparse.Namespace) -> None:
    """Runs `mmjax robustness`."""
    from mmjax.cli.jax_setup import set_compilation_cache
    from mmjax.config import trust
    from mmjax.data.dataset import get_split
    from mmjax.modalities.robustness.conditions import check_levels, list_conditions
    from mmjax.modalities.robustness.write_robustness import write_robustness
    from mmjax.runs import load

    kinds = _parse_pairs("--kinds", arguments.kinds, "KIND", "audio=series")
    sensors = _parse_pairs("--groups", arguments.groups, "MODALITY+MODALITY", "av=image+sound")
    groups = {name: members.split("+") for name, members in sensors.items()}
    check_levels(arguments.levels)
    set_compilation_cache(arguments.compilation_cache)
    with trust.open_stored_run(options.read_trust_options(arguments)):
        trained = load.load(arguments.run, arguments.arm, arguments.seed)
        baseline = None if arguments.baseline is None else load.load(arguments.baseline)
        data = trained.experiment.data
    conditions = list_conditions(
        trained.spec,
        get_split(data, "train"),
        modalities=arguments.modalities,
        corruptions=arguments.corruptions,
        kinds=kinds,
        groups=groups,
    )
    models = [trained] if baseline is None else [trained, baseline]
    measured = _measure_models(models, data, conditions, arguments)
    home = load.find_arm(arguments.run.expanduser(), arguments.arm).directory
    directory = arguments.out or home / "robustness"
    print_paragraph(write_robustness(directory, *measured))
    print_text(f"Table, figure and numbers: {directory}")


def _measure_models(
    models: Sequence[Any], data: Any, conditions: Any, arguments: argparse.Namespace
) -> list[Any]:
    """Measures every model under all conditions, with a progress bar."""
    from mmjax.data.progress_bars import show_row_progress
    from mmjax.modalities.robustness.measure import measure_robustness

    measured = []
    with show_row_progress("Measuring conditions", len(conditions) * len(models)) as advance:
        for model in models:
            robustness = measure_robustness(
                model,
                data,
                conditions,
                split=arguments.split,
                levels=arguments.levels,
                draws=arguments.seeds_of_corruption,
                advance=lambda: advance(1),
            )
            measured.append(robustness)
    return measured


def _parse_pairs(option: str, texts: list[str], value: str, example: str) -> dict[str, str]:
    """Parses NAME=VALUE, each name once."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals:
            raise ValueError(f"{option} {text!r} is not NAME={value}, such as {example}.")
        if name in pairs:
            raise ValueError(f"{option} names {name!r} twice; name it once.")
        pairs[name] = rest
    return pairs
