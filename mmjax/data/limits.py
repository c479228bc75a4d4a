"""Limits on the unpacked size of one file, which readers check before they allocate memory.

A file of a few kilobytes may declare terabytes. Every reader computes the size that the header of
its file declares and checks it here. Each limit is the default of an option, so that users who
trust a larger file can read it.
"""

import os
from pathlib import Path

MAX_BYTES = 4 << 30  # of the arrays of one file, or of one table's cells
MAX_RECORDING_BYTES = 1 << 28  # of one WAV file; spectrograms take some 20 times as much
MAX_PIXELS = 89_478_485  # of one image (256 MiB in color); Pillow warns above it
MAX_CELL = 1 << 24  # bytes of one cell of a table
MAX_SAMPLE_RATE = 1_000_000  # Hz; above it, resampling filters alone need gigabytes
MAX_CHANNELS = 64
TABLE_SIZE_OPTION = "stream=Streaming(), or max_bytes"  # what `from_table` takes for larger files
MAX_DEFLATE_RATIO = 1032  # the largest possible ratio of unpacked to deflated size


class LimitError(ValueError):
    """A file that is larger than a limit. The message names the option that raises the limit."""


def check_declared_size(name: object, size: int, limit: int, option: str, unit: str = "B") -> None:
    """Refuses a file that declares more than the limit.

    Args:
      name: name of the file, for the message.
      size: the size that it declares.
      limit: the largest size that is accepted.
      option: the name of the argument that raises the limit.
      unit: unit of size and limit: "B", which is printed as KiB, MiB and so on, or another noun.

    Raises:
      LimitError: naming the file, both sizes and the option.
    """
    if size > limit:
        raise LimitError(
            f"{name}: its size is {format_size(size, unit)}, more than the limit of "
            f"{format_size(limit, unit)}; if that is meant, give {option}={size} or more."
        )


def check_file_size(path: Path, limit: int, option: str) -> None:
    """Refuses a file that is itself larger than the limit.

    Raises:
      LimitError: naming the file, both sizes and the option.
    """
    check_declared_size(path, os.stat(path).st_size, limit, option)


def format_size(size: int, unit: str = "B") -> str:
    """Formats a size in bytes, or in another unit.

    Example:
      >>> format_size(3 << 30), format_size(169000000, "pixels")
      ('3.0 GiB', '169,000,000 pixels')
    """
    if unit != "B":
        return f"{size:,} {unit}"
    value, prefixes = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1024 and len(prefixes) > 1:
        value /= 1024
        prefixes.pop(0)
    return f"{size} B" if prefixes[0] == "B" else f"{value:,.1f} {prefixes[0]}"
