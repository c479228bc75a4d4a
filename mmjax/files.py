"""Files that survive kills and reveal damage: atomic writes, checksums and locks.

Every file that mmjax writes for itself goes through this module.

- `write_text`, `write_json` and `replacing` write beside the file and rename, so that a reader
  never meets half a file, and a kill leaves the old one.
- A JSON object carries the SHA-256 of the rest of it under the key "sha256", and each object of a
  JSON list its own. A line of a JSON-lines log carries the CRC-32 of the rest of it as its last
  key, "crc32". Readers check and drop these keys. Files without checksums are read as they are.
- `lock` is a lock of the operating system, which ends with its holder, however that ends.
"""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.console import print_text

SEAL = "sha256"
LINE_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}$')
LOCK = ".lock"
LOCK_HOLDER = ".lock.json"
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
"""What reading or interpreting a damaged file can raise."""


class DamagedFileError(ValueError):
    """A file of a run is damaged. The message names the file, and the line if it has lines."""


class LockedError(OSError):
    """Another process holds a lock. The message says which one."""


# Atomic writes


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, and renames it to `path` at the end.

    The content is on the disk before the rename. If the block raises, `path` stays as it was.

    Raises:
      OSError: naming `path`, if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming_file(path):
        try:
            yield draft
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any, *, sealed: bool = True) -> None:
    """Writes JSON atomically.

    Args:
      path: the file.
      value: what to write.
      sealed: whether objects get a checksum, which `read_json` checks. Files that people read by
        other means, and that can be made again, have none.
    """
    write_text(path, json.dumps(seal(value) if sealed else value, indent=1) + "\n")


def append_line(path: Path, text: str) -> None:
    """Appends a line to a text file.

    Raises:
      OSError: naming `path`, if it cannot be written.
    """
    with naming_file(path), path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Raises OSErrors of the block again with the name of the file that was meant."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = error.strerror or type(error).__name__
        raise type(error)(error.errno, f"cannot read or write {path}: {reason}") from error


def is_writable(directory: Path) -> bool:
    """Makes a directory if need be, and returns whether files can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


# JSON with a checksum


def seal(value: Any) -> Any:
    """Adds the checksum to a JSON object, or to each object of a list."""
    if isinstance(value, Mapping):
        return {**value, SEAL: _checksum(value)}
    return [seal(item) for item in value] if isinstance(value, list) else value


def unseal(value: Any) -> Any:
    """Checks and drops the checksums that `seal` added; what has none is returned as it is.

    Raises:
      ValueError: a checksum does not match.
    """
    if isinstance(value, list):
        return [unseal(item) if isinstance(item, dict) else item for item in value]
    if not isinstance(value, dict):
        return value
    rest = {name: item for name, item in value.items() if name != SEAL}
    if SEAL in value and value[SEAL] != _checksum(rest):
        raise ValueError("its checksum does not match")
    if SEAL not in value and any(isinstance(x, str) and len(x) == 64 for x in rest.values()):
        raise ValueError("the name of its checksum is damaged")
    return rest


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote, or any other JSON file.

    Raises:
      DamagedFileError: it is not JSON, or its checksum does not match.
      OSError: naming `path`, if it cannot be read.
    """
    content = read_bytes(path)
    with naming_damage(path):
        return unseal(json.loads(content.decode("utf-8")))


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
      OSError: naming `path`, if it cannot be read.
    """
    with naming_file(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Reads a text file for people; bytes that are not UTF-8 become replacement characters."""
    return read_bytes(path).decode("utf-8", "replace")


@contextlib.contextmanager
def naming_damage(path: Path | str) -> Iterator[None]:
    """Raises what reading and interpreting a damaged file raises as one error that names it."""
    try:
        yield
    except DamagedFileError:
        raise
    except DAMAGE as error:
        raise DamagedFileError(f"{path} is damaged: {_reason(error)}.") from error


def set_aside(path: Path) -> Path:
    """Renames a damaged file to NAME.damaged, or NAME.damaged-2 and so on; returns the new path."""
    taken = len(list(path.parent.glob(f"{path.name}.damaged*")))
    aside = path.with_name(f"{path.name}.damaged" + (f"-{taken + 1}" if taken else ""))
    with naming_file(path):
        os.replace(path, aside)
    return aside


def checksum_file(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    with naming_file(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(value: Mapping[str, Any]) -> str:
    # Written and read once, so that keys and numbers are what a reader will find.
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}" if error.args else "it lacks something"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError) and not error.doc.strip():
        return "it is empty"
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text[:200].rstrip(".")


# JSON lines with checksums


class Log(NamedTuple):
    """The content of a JSON-lines log.

    Attributes:
      records: one per whole line, without checksums.
      damage: {number of records before it: "FILE line N: reason"} of the damaged lines. A last
        line that a kill cut off is not damage; it is left out.
    """

    records: list[dict[str, Any]]
    damage: list[tuple[int, str]]


def log_line(record: Mapping[str, Any]) -> str:
    """Formats a record as a line of a log, with its checksum."""
    text = json.dumps(record)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'


def read_log(path: Path) -> Log:
    """Reads a JSON-lines log; empty if there is no such file.

    A record must have a whole number "step"; its other values must be numbers.
    """
    log = Log([], [])
    if not path.exists():
        return log
    *lines, last = read_bytes(path).split(b"\n")
    for number, line in enumerate([*lines, last], start=1):
        try:
            record = _log_record(line)
        except DAMAGE as error:
            if line is last and b"}" not in line and line.decode("latin-1").isprintable():
                break  # cut off by a kill, or nothing
            log.damage.append((len(log.records), f"{path} line {number}: {_reason(error)}"))
        else:
            log.records.append(record)
    return log


def _log_record(line: bytes) -> dict[str, Any]:
    sealed = LINE_SEAL.search(line)
    body = line[: sealed.start()] + b"}" if sealed else line
    if sealed and zlib.crc32(body) != int(sealed[1], 16):
        raise ValueError("its checksum does not match")
    record = json.loads(body.decode("utf-8"))
    if not isinstance(record, dict) or not isinstance(record["step"], int):
        raise ValueError("it is not a record of a step")
    if "crc32" in record or not all(isinstance(x, int | float) for x in record.values()):
        raise ValueError("it holds something that is not a number")
    return record


# Locks


_held: set[Path] = set()  # directories that this process has locked


@contextlib.contextmanager
def lock(path: Path, waiting: str = "") -> Iterator[None]:
    """Holds a lock of the operating system on a file, which is made if need be and stays.

    The lock ends with the process, so a killed one leaves none behind. On network file systems it
    is as good as their `flock`: NFS since version 4, across machines only if the server allows it.

    Args:
      path: the lock's file.
      waiting: what the holder does. If it is given, it is printed and the holder is waited for.

    Raises:
      LockedError: another process holds the lock, and `waiting` is empty.
      OSError: the file cannot be made.
    """
    import filelock

    with naming_file(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(path)
    try:
        with naming_file(path):
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
    """Makes a directory this process's own while the block runs.

    It may be entered again by the process that holds it.

    Raises:
      LockedError: another process works there; the message names it.
    """
    key = directory.resolve()
    if key in _held:
        yield
        return
    holder = directory / LOCK_HOLDER
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(directory / LOCK))
        except LockedError:
            raise LockedError(
                f"{directory} is in use by another process{_describe_holder(holder)}; wait for "
                "it, end it, or choose another --workdir."
            ) from None
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(holder, {"pid": os.getpid(), "host": platform.node(), "since": started})
        _held.add(key)
        try:
            yield
        finally:
            _held.remove(key)
            with contextlib.suppress(OSError):
                holder.unlink()


def is_lock_file(path: Path) -> bool:
    """Returns whether a file of a directory belongs to its lock."""
    return path.name in (LOCK, LOCK_HOLDER)


def is_free(directory: Path) -> bool:
    """Returns whether a directory is missing or empty, a lock aside."""
    return not directory.exists() or all(map(is_lock_file, directory.iterdir()))


def _describe_holder(path: Path) -> str:
    try:
        told = read_json(path)
        return f" (process {told['pid']} on {told['host']} since {told['since']})"
    except (OSError, *DAMAGE):
        return ""
