"""Writes files atomically and reads them, with errors that name the file."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, and renames it to `path` at the end.

    The content is on the disk before the rename. If the block raises, `path` stays as it was.

    Raises:
      OSError: naming `path`, if it cannot be written.
    """
    # Beside the file, since a rename is atomic only inside of one file system.
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with name_file_in_errors(path):
        try:
            yield draft
            # Without this, a crash of the machine could leave an empty file under the final name.
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with replace_atomically(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def append_line(path: Path, text: str) -> None:
    """Appends a line to a text file.

    Raises:
      OSError: naming `path`, if it cannot be written.
    """
    with name_file_in_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Raises OSErrors of the block again with the name of the file that was meant."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reason = error.strerror or type(error).__name__
        raise type(error)(error.errno, f"cannot read or write {path}: {reason}") from error


def can_write_files(directory: Path) -> bool:
    """Creates a directory if necessary, and checks whether files can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def read_bytes(path: Path) -> bytes:
    """Reads a file.

    Raises:
      OSError: naming `path`, if it cannot be read.
    """
    with name_file_in_errors(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Reads a text file for people; bytes that are not UTF-8 become replacement characters."""
    return read_bytes(path).decode("utf-8", "replace")


def compute_sha256(path: Path) -> str:
    """Computes the SHA-256 of a file."""
    with name_file_in_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
