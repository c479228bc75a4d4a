"""Locks of the operating system on files and directories, which end with their holder."""

import contextlib
import datetime
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from mmjax.files.atomic_writes import name_file_in_errors
from mmjax.files.checked_json import read_json, write_json
from mmjax.files.damage import DAMAGE_ERRORS
from mmjax.printing.console import print_text

_LOCK_NAME = ".lock"
LOCK_HOLDER_NAME = ".lock.json"


class LockedError(OSError):
    """Another process holds a lock. The message says which one."""


_locked_directories: set[Path] = set()  # directories that this process has locked


@contextlib.contextmanager
def lock_file(path: Path, waiting: str = "") -> Iterator[None]:
    """Holds a lock of the operating system on a file, which is created if necessary and stays.

    The lock ends with the process, even if that is killed. On network file systems it is as good
    as their `flock`: NFS since version 4, across machines only if the server supports it.

    Args:
      path: the file of the lock.
      waiting: what the holder does; if given, it is printed, and this process waits.

    Raises:
      LockedError: another process holds the lock, and `waiting` is empty.
      OSError: the file cannot be made.
    """
    import filelock

    with name_file_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(path)
    try:
        with name_file_in_errors(path):
            held.acquire(timeout=0)
    except filelock.Timeout:
        if not waiting:
            raise LockedError(f"{path} is locked by another process.") from None
        print_text(f"Waiting for another process: {waiting}.", file=sys.stderr)
        held.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Locks a directory for this process while the block runs.

    The process that holds the lock may enter it again.

    Raises:
      LockedError: another process works there; the message names it.
    """
    # The file lock is not reentrant, so this process remembers what it has locked.
    key = directory.resolve()
    if key in _locked_directories:
        yield
        return
    holder = directory / LOCK_HOLDER_NAME
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(directory / _LOCK_NAME))
        except LockedError:
            raise LockedError(
                f"{directory} is in use by another process{_describe_lock_holder(holder)}; wait "
                "for it, end it, or choose another --workdir."
            ) from None
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(holder, {"pid": os.getpid(), "host": platform.node(), "since": started})
        _locked_directories.add(key)
        try:
            yield
        finally:
            # The lock file stays: if it were removed, two processes could lock different files.
            _locked_directories.remove(key)
            with contextlib.suppress(OSError):
                holder.unlink()


def is_lock_file(path: Path) -> bool:
    """Returns whether a file of a directory belongs to its lock."""
    return path.name in (_LOCK_NAME, LOCK_HOLDER_NAME)


def is_unused_directory(directory: Path) -> bool:
    """Returns whether a directory is missing or empty, a lock aside."""
    return not directory.exists() or all(map(is_lock_file, directory.iterdir()))


def _describe_lock_holder(path: Path) -> str:
    try:
        holder = read_json(path)
        return f" (process {holder['pid']} on {holder['host']} since {holder['since']})"
    except (OSError, *DAMAGE_ERRORS):
        return ""
