"""Full disks: checked for before a write, and recognized by the errors of a failed one."""

import errno
import shutil
from pathlib import Path

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_MESSAGES = ("No space left", "File too large", "RESOURCE_EXHAUSTED")


class DiskFullError(OSError):
    """The disk has no space for what the run must write."""


def require_disk_space(directory: Path, size: int) -> None:
    """Raises OSError (ENOSPC) if the disk has less than `size` bytes left."""
    if shutil.disk_usage(directory).free < size:
        raise OSError(errno.ENOSPC, f"less than {size} bytes are free", str(directory))


def is_disk_full(error: BaseException | None) -> bool:
    """Returns whether a full disk caused the error, even if libraries have wrapped it."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS
        if full or any(sign in str(error) for sign in _DISK_FULL_MESSAGES):
            return True
        error = error.__cause__ or error.__context__
    return False
