"""Memory of a device: how much a program may use, and errors if it needs more."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_USABLE_SHARE = 0.9  # of the memory; the rest is for everything except the program


MEMORY_FIXES = (
    "To save memory, in this order: accumulate=4 (the same step from smaller micro-batches), "
    'model.remat=("*/layer*",), compute_dtype="bfloat16", sharding="fsdp" on several devices, '
    "stream=True if the data are large, fewer seeds at once, a smaller batch_size. `--summary` "
    "shows what takes the memory; see docs/memory.md."
)


class MemoryShortError(MemoryError):
    """A program needs more memory than its device has. The message names what saves memory.

    Attributes:
      shortage: the message without what saves memory.
    """

    def __init__(self, shortage: str) -> None:
        super().__init__(f"{shortage} {MEMORY_FIXES}")
        self.shortage = shortage


def get_usable_memory(devices: Sequence[jax.Device]) -> int:
    """Returns how much memory, in bytes, programs of several replicas may use on one device.

    It is nine tenths of `get_memory_limit`.
    """
    return int(_USABLE_SHARE * get_memory_limit(devices))


def get_memory_limit(devices: Sequence[jax.Device]) -> int:
    """Returns the number of bytes that there are on one of the devices.

    On GPU or TPU it is the limit of the allocator; on CPU, whose devices share it, the memory of
    the machine, or of the control group if that is less. Devices of other processes do not count.
    """
    own = _list_own_devices(devices)
    stats = own[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else "max"
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    total = min(physical, int(limit)) if limit.isdecimal() else physical
    return total // len(own)


def _list_own_devices(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Lists the devices of this process; the memory of the others is not known here."""
    return [device for device in devices if device.process_index == jax.process_index()]


def measure_peak_memory(devices: Sequence[jax.Device]) -> int:
    """Measures the most bytes that were in use so far, since the process started.

    On GPU or TPU it is that of the fullest device; on CPU that of the whole process, on all
    devices, with what it loaded.
    """
    stats = [device.memory_stats() or {} for device in _list_own_devices(devices)]
    if any("peak_bytes_in_use" in s for s in stats):
        return max(int(s.get("peak_bytes_in_use", 0)) for s in stats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # other systems count in KiB


def check_memory(needed: int, limit: int, replicas: int) -> None:
    """Refuses a program that needs too much memory, before it runs.

    Args:
      needed: bytes that it needs on one device.
      limit: bytes that the device can provide.
      replicas: number of replicas that it trains.

    Raises:
      MemoryShortError: if it needs more than the limit.
    """
    if needed > limit:
        raise MemoryShortError(
            f"A program of {_count_replicas(replicas)} needs {needed / 1e6:,.1f} MB on a device, "
            f"which can provide {limit / 1e6:,.1f} MB."
        )


def _count_replicas(replicas: int) -> str:
    return f"{replicas} replica{'s' * (replicas > 1)}"


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
        message = f"A program of {_count_replicas(replicas)} ran out of memory: {first}"
        raise MemoryShortError(message if message.endswith(".") else f"{message}.") from error
