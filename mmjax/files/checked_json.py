"""JSON files with a checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.files.atomic_writes import read_bytes, write_text
from mmjax.files.damage import name_damaged_file

CHECKSUM_KEY = "sha256"


def write_json(path: Path, value: Any, *, sealed: bool = True) -> None:
    """Writes JSON atomically.

    Args:
      path: the file.
      value: what to write.
      sealed: whether objects get a checksum, which `read_json` checks. Files that people read by
        other means, and that can be made again, have none.
    """
    write_text(path, json.dumps(_add_checksums(value) if sealed else value, indent=1) + "\n")


def _add_checksums(value: Any) -> Any:
    """Adds the checksum to a JSON object, or to each object of a list."""
    if isinstance(value, Mapping):
        return {**value, CHECKSUM_KEY: _compute_checksum(value)}
    return [_add_checksums(item) for item in value] if isinstance(value, list) else value


def check_and_drop_checksums(value: Any) -> Any:
    """Checks and drops the checksums of `_add_checksums`; values without any stay as they are.

    Raises:
      ValueError: a checksum does not match.
    """
    if isinstance(value, list):
        return [
            check_and_drop_checksums(item) if isinstance(item, dict) else item for item in value
        ]
    if not isinstance(value, dict):
        return value
    rest = {name: item for name, item in value.items() if name != CHECKSUM_KEY}
    if CHECKSUM_KEY in value and value[CHECKSUM_KEY] != _compute_checksum(rest):
        raise ValueError("its checksum does not match")
    # A damaged key would hide the checksum, so look for a value that has the form of one.
    if CHECKSUM_KEY not in value and any(
        isinstance(x, str) and len(x) == 64 for x in rest.values()
    ):
        raise ValueError("the name of its checksum is damaged")
    return rest


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote, or any other JSON file.

    Raises:
      DamagedFileError: it is not JSON, or its checksum does not match.
      OSError: naming `path`, if it cannot be read.
    """
    content = read_bytes(path)
    with name_damaged_file(path):
        return check_and_drop_checksums(json.loads(content.decode("utf-8")))


def _compute_checksum(value: Mapping[str, Any]) -> str:
    # Written and read once, so that keys and numbers are what a reader will find.
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
