"""The options of the command line."""

import argparse
import os
from pathlib import Path


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of training."""
    add = parser.add_argument
    add("--set", action="append", default=[], metavar="PATH=VALUE", dest="settings",
        help="set one path, such as epochs=20 or 'model.fusion=Gated(width=64)'; PATH=None "
        "removes an entry of a dict; repeatable")  # fmt: skip
    add("--seeds", nargs="+", type=_natural, metavar="N",
        help="seeds, trained together as one program (default: 0, or the run's)")  # fmt: skip
    add("--workdir", type=Path, metavar="DIR",
        help="where results go (default: runs/NAME/TIME)")  # fmt: skip
    add("--resume", action="store_true", help="continue the run in --workdir, if there is one")
    add("--from-run", type=Path, metavar="DIR", help="take the configuration of that run")
    add_shared_options(parser)
    add("-h", "--help", action="store_true", help="show this and the experiment's paths")


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """The options of training and evaluation."""
    add = parser.add_argument
    add("--allow", action="append", default=[], metavar="MODULE",
        help="trust a module that a stored configuration names; repeatable")  # fmt: skip
    add("--devices", type=_positive, metavar="N", help="how many devices (default: all)")
    add("--compilation-cache", type=Path, metavar="DIR", default=cache_directory(),
        help="where compiled programs are kept for the next start (default: %(default)s)")  # fmt: skip
    add("--no-compilation-cache", action="store_const", const=None, dest="compilation_cache",
        help="keep none")  # fmt: skip


def cache_directory() -> Path:
    """Where compiled programs are kept: $MMJAX_CACHE/xla, or mmjax/xla in the user's cache."""
    if own := os.environ.get("MMJAX_CACHE"):
        return Path(own) / "xla"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmjax" / "xla"


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return int(text)
