"""The command line: `main` ends an experiment's file, `script` is the console script `mmjax`."""

from typing import TYPE_CHECKING, Any

from mmjax.cli.commands import script

if TYPE_CHECKING:
    from mmjax.cli.experiment_commands import main

__all__ = ["main", "script"]


def __getattr__(name: str) -> Any:
    """Imports `main` on first use, since `mmjax --help` does not need its imports."""
    if name == "main":
        from mmjax.cli.experiment_commands import main

        return main
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
