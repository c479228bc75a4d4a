"""Choice of the devices that train an experiment.

JAX sees all cores of a CPU as one device, which divides each operation among them. Small models
gain little from that. One device per core divides the batch instead, so that the cores synchronize
only once per step.
"""

import contextlib
import os
from pathlib import Path

import jax

from mmjax.experiment import Experiment

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "quota period" or "max period", in microseconds
_MIN_EXAMPLES_PER_CORE = 16
"""Examples per core: with fewer, narrow batches lose as much time as the second core gains."""


def expose_cpu_cores() -> None:
    """Makes every CPU core that this process may use a device of its own.

    Nothing changes if JAX has started already, or if the number of CPU devices is configured (by
    `jax_num_cpu_devices`, or `--xla_force_host_platform_device_count` in XLA_FLAGS).
    """
    is_configured = jax.config.jax_num_cpu_devices >= 0  # type: ignore[attr-defined]
    if not is_configured and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", count_usable_cores())


def count_usable_cores() -> int:
    """Returns the number of CPU cores that the affinity and the control group's quota permit."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    # In a container the quota, not the affinity, says how many cores' time there is.
    visible = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota, *period = (_CGROUP_QUOTA.read_text() if _CGROUP_QUOTA.is_file() else "max").split()
    return visible if quota == "max" else max(1, min(visible, int(quota) // int(period[0])))


def choose_devices(experiment: Experiment, count: int | None = None) -> list[jax.Device]:
    """Returns the first `count` devices.

    Args:
      experiment: the experiment that they train.
      count: number of devices. None is all; but of a single process's CPU devices only as many as
        divide the batches evenly and have at least 16 examples each.

    Raises:
      ValueError: if there are fewer.
    """
    available = jax.devices()
    if count is not None and not 1 <= count <= len(available):
        raise ValueError(
            f"{count} devices were requested, but there are {len(available)} "
            f"({available[0].platform})."
        )
    if count is None and available[0].platform == "cpu" and jax.process_count() == 1:
        count = count_busy_cores(len(available), experiment.batch_size, experiment.eval_batch_size)
    return available[:count]


def count_busy_cores(most: int, *batches: int) -> int:
    """Returns the largest number of cores, up to `most`, that divide all batches evenly."""
    fitting = range(1, min(most, min(batches) // _MIN_EXAMPLES_PER_CORE) + 1)
    return max((n for n in fitting if not any(size % n for size in batches)), default=1)
