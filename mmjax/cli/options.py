"""The options of the command line."""

import argparse
import datetime
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmjax.config.trust import Trust


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of training."""
    add = parser.add_argument
    _add_set_option(parser)
    seeds = "seeds, trained together in one program (default: 0, or those of --from-run)"
    add("--seeds", nargs="+", type=parse_natural_number, metavar="N", help=seeds)
    workdir = "directory of the results (default: runs/NAME/TIME)"
    add("--workdir", type=Path, metavar="DIR", help=workdir)
    add("--resume", action="store_true", help="continue the run in --workdir, if there is one")
    add_allow_changes_option(parser)
    add_checkpoint_option(parser)
    add_predictions_option(parser)
    summary = (
        "print the model of every arm (shapes, parameters, FLOPs), in Markdown to a file; stop"
    )
    add("--summary", action="store_true", help=summary)
    add("--from-run", type=Path, metavar="DIR", help="use the configuration of that run")
    add_trust_options(parser)
    add_device_and_cache_options(parser)
    add_process_options(parser)
    add("-h", "--help", action="store_true", help="show this help and the experiment's paths")


def _add_set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="settings",
        help="set one path, such as epochs=20 or 'model.fusion=Gated(width=64)'; PATH=None "
        "removes an entry of a dict; repeatable",
    )


def add_allow_changes_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option to resume with other code or data than before."""
    allowed = "resume even if the experiment's own code or the data have changed since"
    parser.add_argument("--allow-changes", action="store_true", help=allowed)


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that let a stored run do more than be read; see SECURITY.md."""
    add = parser.add_argument
    allow = "trust a module that a stored configuration names; repeatable"
    add("--allow", action="append", default=[], metavar="MODULE", help=allow)
    code = "run the stored copy of an experiment's code if a stored configuration needs it"
    add("--allow-code", action="store_true", help=code)
    writes = "let a stored configuration prepare its data, in the folders that it names"
    add("--allow-writes", action="store_true", help=writes)


def read_trust_options(options: argparse.Namespace) -> "Trust":
    """Returns the permissions that the options of `add_trust_options` give a stored run."""
    from mmjax.config.trust import Trust

    return Trust(tuple(options.allow), options.allow_code, options.allow_writes)


def add_trained_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds what names a trained model: the run, its arm and its seeds."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN_DIR", help="directory of a run, a study, or one arm")
    add("--arm", metavar="NAME", help="arm of the run (default: the only one, or all)")
    seeds = "seeds; several are an ensemble, the mean of their probabilities (default: all)"
    add("--seed", nargs="+", type=parse_natural_number, metavar="N", help=seeds)


def add_predictions_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option to store predictions on the test split."""
    text = "store the test predictions of every arm and seed in predictions-seedN.parquet"
    parser.add_argument("--predictions", action="store_true", help=text)


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint-every: not part of an experiment, since it does not change the result."""
    text = (
        "interval of checkpoints in steps, such as 500, or in time, such as 90s, 10min or 2h, "
        "besides those of the validations (default: 10min)"
    )
    default = datetime.timedelta(minutes=10)
    parser.add_argument(
        "--checkpoint-every",
        type=parse_steps_or_time,
        metavar="STEPS|TIME",
        default=default,
        help=text,
    )


def add_device_and_cache_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of devices and of the compilation cache."""
    add = parser.add_argument
    devices = "number of devices (default: all; on CPU, as many cores as a batch can keep busy)"
    add("--devices", type=parse_positive_number, metavar="N", help=devices)
    add_cache_options(parser)


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a run in several processes, each of which is started with them."""
    add = parser.add_argument
    found = "train together with the other processes of this SLURM step, Open MPI job or TPU pod"
    add("--distributed", action="store_true", help=found)
    address = "train together with processes that meet at this address, which is that of the first"
    add("--coordinator", metavar="HOST:PORT", help=address)
    number = "number of this process, from 0, with --coordinator"
    add("--process-id", type=parse_natural_number, metavar="I", help=number)
    count = "number of processes, with --coordinator"
    add("--num-processes", type=parse_positive_number, metavar="N", help=count)


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the compilation cache."""
    add = parser.add_argument
    cache = "folder of compiled programs for the next start (default: %(default)s)"
    default = default_cache_directory()
    add("--compilation-cache", type=Path, metavar="DIR", default=default, help=cache)
    off = "--no-compilation-cache"
    add(
        off,
        action="store_const",
        const=None,
        dest="compilation_cache",
        help="do not store compiled programs",
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Adds the data set and the folders of its original and prepared files."""
    name = (
        "a data set of mmjax such as multi_mnist, module:name of your own, or a call, such as "
        "'multi_mnist(seed=3)'"
    )
    parser.add_argument("name", metavar="NAME", help=name)
    manual = "folder with the original files (default: download them)"
    parser.add_argument("--manual-dir", type=Path, metavar="DIR", help=manual)
    prepared = "folder of prepared data sets (default: TFDS's own, or TFDS_DATA_DIR)"
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=prepared)


def default_cache_directory() -> Path | None:
    """Returns the folder of compiled programs: by default mmjax/xla in the user's cache.

    The environment variables MMJAX_CACHE and JAX_COMPILATION_CACHE_DIR override it. None if the
    user has no home folder.
    """
    if mmjax_cache := os.environ.get("MMJAX_CACHE"):
        return Path(mmjax_cache) / "xla"
    if jax_cache := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(jax_cache)
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return None if cache.startswith("~") else Path(cache) / "mmjax" / "xla"


def parse_natural_number(text: str) -> int:
    """Parses a whole number from 0 on.

    Example:
      >>> parse_natural_number("12")
      12
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def parse_positive_number(text: str) -> int:
    """Parses a whole number from 1 on."""
    if parse_natural_number(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return int(text)


def parse_steps_or_time(text: str) -> int | datetime.timedelta:
    """Parses a number of steps, or a time with its unit.

    Example:
      >>> parse_steps_or_time("500"), parse_steps_or_time("1.5h")
      (500, datetime.timedelta(seconds=5400))
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *(s|min|h|)", text, re.ASCII)
    if not match or not float(match[1]) or (not match[2] and "." in match[1]):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of steps, such as 500, nor a time, such as 90s or 10min"
        )
    if not match[2]:
        return int(match[1])
    try:
        return datetime.timedelta(
            seconds=float(match[1]) * {"s": 1, "min": 60, "h": 3600}[match[2]]
        )
    except OverflowError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is too long") from error
