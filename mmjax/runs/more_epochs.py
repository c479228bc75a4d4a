"""Continues a stored run, finished or not, for more epochs, bit-identical to one longer run.

Nothing in a configuration depends on its number of epochs, except for the validation after the last
one. A value that a user derives from it, such as the steps of a decay, is a separate setting: if
it changes as well, the run is a different one.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from mmjax import files
from mmjax.experiment import Experiment
from mmjax.files.run_files import write_config_file
from mmjax.runs.stored_settings import parse_settings

_DEFAULT_EPOCHS = Experiment.epochs


def has_more_epochs(stored: fdl.Buildable, asked: fdl.Buildable) -> bool:
    """Checks whether an experiment continues a stored one for more epochs.

    Example:
      >>> stored = fdl.Config(Experiment, epochs=4, eval_every=2)
      >>> has_more_epochs(stored, fdl.Config(Experiment, epochs=9, eval_every=2))
      True
    """
    return _has_other_epochs(stored, asked) and not explain_refusal(stored, asked)


def explain_refusal(stored: fdl.Buildable, asked: fdl.Buildable) -> str:
    """Explains why a stored run cannot continue to another number of epochs; "" if it can."""
    if not _has_other_epochs(stored, asked):
        return ""
    if asked.epochs < stored.epochs:
        return " (a run can only be continued for more epochs)"
    # The last epoch of a run is always validated. If the longer run does not validate it as well,
    # the two may select different steps.
    if stored.epochs % stored.eval_every:
        return (
            f" (the stored run validates after epoch {stored.epochs}, its last one; a longer run "
            f"does not, since eval_every is {stored.eval_every})"
        )
    return ""


def store_more_epochs(
    directory: Path,
    arms: Mapping[str, str],
    config: str,
    table: str,
    stored_arms: Mapping[str, str],
) -> None:
    """Stores the configurations of a run that continues for more epochs.

    The results of the continued arms are kept under other names, such as
    "result-after-10-epochs.json": without them the arms are not finished.

    Args:
      directory: the run's directory.
      arms: {arm: its new configuration, as JSON text}.
      config: the whole configuration.
      table: the same as a table.
      stored_arms: {arm: its stored configuration}.
    """
    longer = {}
    for arm, text in arms.items():
        epochs = _read_epochs(stored_arms[arm])
        if epochs != _read_epochs(text):
            longer[arm] = epochs
    # In this order, a run that is killed here can be asked to continue once more.
    for arm, epochs in longer.items():
        for pattern in ("result.json", "predictions-seed*.parquet"):
            for path in sorted((directory / arm).glob(pattern)):
                path.replace(path.with_stem(f"{path.stem}-after-{epochs}-epochs"))
        write_config_file(directory / arm / "config.json", arms[arm])
    if longer:
        files.write_text(directory / "config.txt", table + "\n")
        write_config_file(directory / "config.json", config)


def _has_other_epochs(stored: fdl.Buildable, asked: fdl.Buildable) -> bool:
    are_experiments = all(fdl.get_callable(x) is Experiment for x in (stored, asked))
    return are_experiments and stored.epochs != asked.epochs


def _read_epochs(text: str) -> Any:
    # A stored configuration lists only the settings that were given.
    return ast.literal_eval(parse_settings(text).get("epochs", repr(_DEFAULT_EPOCHS)))
