"""The options of the command line."""

import argparse
import datetime
import os
import re
from pathlib import Path


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of training."""
    add = parser.add_argument
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="settings",
        help="set one path, such as epochs=20 or 'model.fusion=Gated(width=64)'; PATH=None "
        "removes an entry of a dict; repeatable",
    )
    seeds = "seeds, trained together as one program (default: 0, or those of --from-run)"
    add("--seeds", nargs="+", type=natural, metavar="N", help=seeds)
    workdir = "where results go (default: runs/NAME/TIME)"
    add("--workdir", type=Path, metavar="DIR", help=workdir)
    add("--resume", action="store_true", help="continue the run in --workdir, if there is one")
    add_checkpoint_option(parser)
    summary = (
        "print the model of every arm (shapes, parameters, FLOPs), in Markdown to a file; stop"
    )
    add("--summary", action="store_true", help=summary)
    add("--from-run", type=Path, metavar="DIR", help="take the configuration of that run")
    add_shared_options(parser)
    add("-h", "--help", action="store_true", help="show this and the experiment's paths")


def add_checkpoint_option(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint-every, which is no part of an experiment: it does not change the result."""
    text = (
        "save a checkpoint after so many steps, such as 500, or so much time, such as 90s, 10min "
        "or 2h, besides those of the validations (default: 10min)"
    )
    default = datetime.timedelta(minutes=10)
    parser.add_argument(
        "--checkpoint-every", type=steps_or_time, metavar="STEPS|TIME", default=default, help=text
    )


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """The options of training and evaluation."""
    add = parser.add_argument
    allow = "trust a module that a stored configuration names; repeatable"
    add("--allow", action="append", default=[], metavar="MODULE", help=allow)
    devices = "how many devices (default: all; of a CPU's cores those that a batch keeps busy)"
    add("--devices", type=positive, metavar="N", help=devices)
    cache = "where compiled programs are kept for the next start (default: %(default)s)"
    default = cache_directory()
    add("--compilation-cache", type=Path, metavar="DIR", default=default, help=cache)
    off = "--no-compilation-cache"
    add(off, action="store_const", const=None, dest="compilation_cache", help="keep none")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """A data set and the folders that it is made from and kept in."""
    name = (
        "a data set of mmjax such as multi_mnist, module:name of your own, or a call, such as "
        "'multi_mnist(seed=3)'"
    )
    parser.add_argument("name", metavar="NAME", help=name)
    manual = "folder with the original files (default: download them)"
    parser.add_argument("--manual-dir", type=Path, metavar="DIR", help=manual)
    kept = "folder of prepared data sets (default: TFDS's own, or TFDS_DATA_DIR)"
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=kept)


def cache_directory() -> Path:
    """Where compiled programs are kept: by default in mmjax/xla in the user's cache.

    The environment may say otherwise by MMJAX_CACHE or JAX's own JAX_COMPILATION_CACHE_DIR.
    """
    if own := os.environ.get("MMJAX_CACHE"):
        return Path(own) / "xla"
    if jax_own := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(jax_own)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmjax" / "xla"


def natural(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if natural(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return int(text)


def steps_or_time(text: str) -> int | datetime.timedelta:
    """Parses a number of steps, or a time with its unit.

    >>> steps_or_time("500"), steps_or_time("1.5h")
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
        raise argparse.ArgumentTypeError(f"{text!r} is too long a time") from error
