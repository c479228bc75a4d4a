"""How much memory a device has, and what happens where a program needs more."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

CGROUP = Path("/sys/fs/cgroup/memory.max")
SHARE = 0.9  # of the memory; the rest is for all that is no program's


class MemoryShortError(MemoryError):
    """A program needs more memory than its device has."""


def available(devices: Sequence[jax.Device]) -> int:
    """Bytes that a program may take on one of the devices.

    Of a GPU or TPU what its allocator has; of a CPU, whose devices share it, the machine's memory,
    or what its control group may have.
    """
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(SHARE * stats["bytes_limit"])
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else "max"
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total = min(physical, int(limit)) if limit.isdecimal() else physical
    return int(SHARE * total / len(devices))


def check_memory(needed: int, limit: int | None, lanes: int) -> None:
    """Refuses a program before it runs.

    Raises:
      MemoryShortError: it needs more than the limit.
    """
    if limit is not None and needed > limit:
        raise MemoryShortError(
            f"A program of {lanes} lanes needs {needed / 1e6:,.1f} MB on a device, which can give "
            f"{limit / 1e6:,.1f} MB."
        )


@contextlib.contextmanager
def memory_errors(lanes: int) -> Iterator[None]:
    """Gives a device's lack of memory a name.

    Raises:
      MemoryShortError: the device had none left.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).split("\n")[0]
        message = f"A program of {lanes} lanes ran out of memory: {first}"
        raise MemoryShortError(message) from error
