"""Memory of a device: how much a program may use, and errors if it needs more."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USABLE_SHARE = 0.9  # of the memory; the rest is for everything except the program


class MemoryShortError(MemoryError):
    """A program needs more memory than its device has."""


def get_usable_memory(devices: Sequence[jax.Device]) -> int:
    """Returns the number of bytes that may be used on one of the devices.

    On GPU or TPU it is the limit of the allocator; on CPU, whose devices share it, the memory of
    the machine, or of the control group if that is less.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(_USABLE_SHARE * stats["bytes_limit"])
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else "max"
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total = min(physical, int(limit)) if limit.isdecimal() else physical
    return int(_USABLE_SHARE * total / len(devices))


def check_memory(needed: int, limit: int | None, replicas: int) -> None:
    """Refuses a program that needs too much memory, before it runs.

    Raises:
      MemoryShortError: if it needs more than the limit.
    """
    if limit is not None and needed > limit:
        raise MemoryShortError(
            f"A program of {replicas} replicas needs {needed / 1e6:,.1f} MB on a device, which can "
            f"provide {limit / 1e6:,.1f} MB."
        )


@contextlib.contextmanager
def translate_memory_errors(replicas: int) -> Iterator[None]:
    """Turns a device's error about memory into a `MemoryShortError`.

    Raises:
      MemoryShortError: if the device ran out of memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).split("\n")[0]
        message = f"A program of {replicas} replicas ran out of memory: {first}"
        raise MemoryShortError(message) from error
