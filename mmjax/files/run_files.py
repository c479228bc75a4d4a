"""Reads and writes the files of a run that several modules need: configurations and results."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmjax import files


def write_config_file(path: Path, text: str) -> None:
    """Writes a configuration that `mmjax.config.dump_config` made, with a checksum."""
    files.write_json(path, json.loads(text))


def read_config_file(path: Path) -> str:
    """Reads a configuration as the text that `mmjax.config.dump_config` made.

    Raises:
      DamagedFileError: it is damaged, or missing.
      OSError: it cannot be read.
    """
    if not path.is_file():
        raise files.DamagedFileError(f"{path} is missing.")
    data = files.read_json(path)
    with files.name_damaged_file(path):
        if not {"root", "objects"} <= data.keys():
            raise ValueError("it is not a configuration")
        return json.dumps(data)


def is_directory_name(name: Any) -> bool:
    """Checks whether a name can be that of a directory in a run's or study's directory.

    Example:
      >>> is_directory_name("lr=0.1"), is_directory_name("../other")
      (True, False)
    """
    return (
        isinstance(name, str) and name[:1] not in ("", ".") and not {"/", os.sep, "\0"} & set(name)
    )


def check_arm_names(names: Iterable[Any]) -> None:
    """Refuses stored names of arms that would lead out of the run's or the study's directory.

    Raises:
      ValueError: naming the arm.
    """
    for name in names:
        if not is_directory_name(name):
            raise ValueError(f"the arm name {name!r} cannot be the name of a directory")


def read_result_file(path: Path) -> dict[str, Any]:
    """Reads a result.json, as `mmjax.train.run_arms.make_arm_result` made it.

    Raises:
      DamagedFileError: it is damaged, or not a result.
      OSError: it cannot be read.
    """
    stored: dict[str, Any] = files.read_json(path)
    with files.name_damaged_file(path):
        _check_numbers(stored["cost"] | {"total": stored["parameters"]["total"]})
        for seed, values in stored["seeds"].items():
            steps = {"step": values["best_step"], "steps": values["steps"]}
            _check_numbers({"seed": int(seed)} | steps)
            _check_numbers(values["test"] | values["validation"])
    return stored


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float):
            raise ValueError(f"{name} is not a number")
        if isinstance(value, int) and value.bit_length() > 1000:  # beyond any float
            raise ValueError(f"{name} is too large a number")
