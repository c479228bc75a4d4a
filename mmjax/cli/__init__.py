"""The command line: `main` ends an experiment's file, `script` is the console script `mmjax`."""

from mmjax.cli.app import main, script

__all__ = ["main", "script"]
