"""One random experiment on disk, and the command line that runs it."""

import random
from pathlib import Path
from typing import Any

from damage import Outcome, run_command
from random_runs.draw_experiment import Draw, draw_experiment

ARMS = """

from mmjax.config import single_modality

ARMS = single_modality
"""


class RefusedError(Exception):
    """The experiment's parts do not fit; the message says why."""


class Case:
    """One random experiment, its folder and the command line that runs it."""

    def __init__(self, rng: random.Random, folder: Path, cache: Path) -> None:
        self.rng, self.folder, self.cache = rng, folder, cache
        self.draw: Draw = draw_experiment(rng, folder)
        self.file = folder / "experiment.py"
        self.file.write_text(self.draw.source, encoding="utf-8")
        self.arms_file = folder / "arms.py"
        self.arms_file.write_text(self.draw.source + ARMS, encoding="utf-8")
        self.seeds = rng.choice(([0], [3], [0, 1]))
        self.devices = rng.choice((1, 1, 2))

    def run(self, name: str, *options: str, **changes: Any) -> Path:
        """Runs the experiment, and returns its directory.

        Raises:
          RefusedError: it was refused in one line.
        """
        directory = self.folder / name
        outcome = self.try_run(name, *options, **changes)
        if outcome.traceback:
            raise AssertionError(outcome.traceback)
        if outcome.code:
            said = outcome.err.strip().splitlines()[-1]
            raise RefusedError(said if outcome.code == 2 else f"after the start: {said}")
        return directory

    def try_run(self, name: str, *options: str, settings: tuple = (), **changes: Any) -> Outcome:
        """Runs the experiment; its file, devices and seeds are those of the case unless changed."""
        seeds = changes.get("seeds", self.seeds)
        devices = changes.get("devices", self.devices)
        sources = [] if "--from-run" in options else [str(changes.get("file", self.file))]
        arguments = ["run", *sources, "--workdir", str(self.folder / name), "--seeds"]
        arguments += [*map(str, seeds), "--devices", str(devices), *options]
        arguments += ["--compilation-cache", str(self.cache)]
        for setting in settings:
            arguments += ["--set", setting]
        return run_command(*arguments)
