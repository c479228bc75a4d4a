"""Standard output and error whose closed readers and encodings do not make a command fail."""

import errno
import io
import os
import sys
from typing import Any

_READER_GONE_ERRORS = (errno.EPIPE, errno.EIO)
"""Errors of a pipe whose reader has ended, or of a closed terminal."""
_failures: list[OSError] = []


class _UnfailingFile(io.FileIO):
    """A file descriptor whose write errors are recorded instead of raised.

    The run matters more than what it prints: `mmjax run FILE | head` must train to its end.
    """

    def write(self, data: Any) -> int:
        """Writes what can be written, and drops the rest."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _READER_GONE_ERRORS and not _failures:
                _failures.append(error)
            return memoryview(data).nbytes


def protect_streams() -> None:
    """Makes standard output and error survive closed pipes, and replace what they cannot encode.

    Streams that other code has replaced are left alone.
    """
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(raw, io.FileIO):
            continue
        stream.flush()
        # Python's own handlers of encoding errors raise, or write bytes that no terminal shows.
        strict = stream.errors in ("strict", "surrogateescape")
        surviving = _UnfailingFile(stream.fileno(), "wb", closefd=False)
        replacement = io.TextIOWrapper(
            io.BufferedWriter(surviving),
            encoding=stream.encoding,
            errors="replace" if strict else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, replacement)


def describe_lost_output() -> str | None:
    """Describes why output was lost, unless only its reader was closed."""
    if sys.stdout is not None:
        sys.stdout.flush()
    return os.strerror(_failures[0].errno or 0) if _failures else None
