"""JSON-lines logs with a checksum per line."""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.files.atomic_writes import read_bytes
from mmjax.files.damage import DAMAGE_ERRORS, describe_damage

_LINE_CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')


class JsonLog(NamedTuple):
    """The content of a JSON-lines log.

    Attributes:
      records: one per whole line, without checksums.
      damage: {number of records before it: "FILE line N: reason"} of the damaged lines. A last
        line that a kill cut off is not damage; it is left out.
    """

    records: list[dict[str, Any]]
    damage: list[tuple[int, str]]


def format_log_line(record: Mapping[str, Any]) -> str:
    """Formats a record as one line of a log, with its checksum.

    Example:
      >>> format_log_line({"step": 1, "loss": 0.5})
      '{"step": 1, "loss": 0.5, "crc32": "878c5e53"}'
    """
    text = json.dumps(record)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'


def read_log(path: Path) -> JsonLog:
    """Reads a JSON-lines log; empty if there is no such file.

    A record must have a whole number "step"; its other values must be numbers.
    """
    log = JsonLog([], [])
    if not path.exists():
        return log
    *lines, last = read_bytes(path).split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        try:
            record = _parse_log_record(line)
        except DAMAGE_ERRORS as error:
            if line is last and b"}" not in line and line.decode("latin-1").isprintable():
                break  # cut off by a kill, or empty
            log.damage.append((len(log.records), f"{path} line {number}: {describe_damage(error)}"))
        else:
            log.records.append(record)
    return log


def _parse_log_record(line: bytes) -> dict[str, Any]:
    # Lines of older versions have no checksum and are read as they are.
    sealed = _LINE_CHECKSUM.search(line)
    body = line[: sealed.start()] + b"}" if sealed else line
    if sealed and zlib.crc32(body) != int(sealed[1], 16):
        raise ValueError("its checksum does not match")
    record = json.loads(body.decode("utf-8"))
    if not isinstance(record, dict) or not isinstance(record["step"], int):
        raise ValueError("it is not the record of one step")
    if "crc32" in record or not all(isinstance(x, int | float) for x in record.values()):
        raise ValueError("it holds something that is not a number")
    return record
