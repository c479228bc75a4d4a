"""The command line: `main` ends an experiment's file, `console` is the script `mmjax`."""

from mmjax.cli.app import console, main

__all__ = ["console", "main"]
