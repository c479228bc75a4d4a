"""The error of damaged files, whose message names the file."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mmjax.files.atomic_writes import name_file_in_errors

DAMAGE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
"""Errors that reading or interpreting a damaged file can raise."""


class DamagedFileError(ValueError):
    """Damaged data in a run directory. The message names the file and, if known, the line."""


@contextlib.contextmanager
def name_damaged_file(path: Path | str) -> Iterator[None]:
    """Raises what reading and interpreting a damaged file raises as one error that names it."""
    try:
        yield
    except DamagedFileError:
        raise
    except DAMAGE_ERRORS as error:
        raise DamagedFileError(f"{path} is damaged: {describe_damage(error)}.") from error


def set_aside_damaged(path: Path) -> Path:
    """Renames a damaged file to NAME.damaged, or NAME.damaged-2 and so on; returns the new path."""
    taken = len(list(path.parent.glob(f"{path.name}.damaged*")))
    aside = path.with_name(f"{path.name}.damaged" + (f"-{taken + 1}" if taken else ""))
    with name_file_in_errors(path):
        os.replace(path, aside)
    return aside


def describe_damage(error: BaseException) -> str:
    """Describes in a few words why a file cannot be read or interpreted."""
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}" if error.args else "it lacks something"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError) and not error.doc.strip():
        return "it is empty"
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text[:200].rstrip(".")
