"""Reads and writes stored configurations: fiddle's JSON with a checksum."""

import json
from pathlib import Path

from mmjax import files


def write_config(path: Path, text: str) -> None:
    """Writes a configuration that `mmjax.config.dump` made."""
    files.write_json(path, json.loads(text))


def read_config(path: Path) -> str:
    """Reads a configuration as the text that `mmjax.config.dump` made.

    Raises:
      DamagedFileError: it is damaged, or missing.
      OSError: it cannot be read.
    """
    if not path.is_file():
        raise files.DamagedFileError(f"{path} is missing.")
    data = files.read_json(path)
    with files.naming_damage(path):
        if not {"root", "objects"} <= data.keys():
            raise ValueError("it is not a configuration")
        return json.dumps(data, indent=1)
