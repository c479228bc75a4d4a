"""Which devices train an experiment.

JAX sees all cores of a CPU as one device, which shares out each operation among them. Small models
gain little from that. A device for each core shares out the batch instead, so that the cores meet
once a step.
"""

import contextlib
import os
from pathlib import Path

import jax

from mmjax.experiment import Experiment

CGROUP = Path("/sys/fs/cgroup/cpu.max")  # "quota period" or "max period", in microseconds
LEAST = 16
"""Examples for a core: with fewer, what a batch loses in width costs what the second core gains."""


def open_cores() -> None:
    """Makes each CPU core that this process may use a device of its own, before JAX starts.

    Where JAX has started, or was told how many devices a CPU is (`jax_num_cpu_devices`, or
    `--xla_force_host_platform_device_count` in XLA_FLAGS), nothing is changed.
    """
    told = jax.config.jax_num_cpu_devices >= 0  # type: ignore[attr-defined]
    if not told and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", cores())


def cores() -> int:
    """How many CPU cores this process may use, by its affinity and its control group's quota."""
    affine = hasattr(os, "sched_getaffinity")
    seen = len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1
    quota, *period = (CGROUP.read_text() if CGROUP.is_file() else "max").split()
    return seen if quota == "max" else max(1, min(seen, int(quota) // int(period[0])))


def choose_devices(experiment: Experiment, count: int | None = None) -> list[jax.Device]:
    """The first devices, as many as are asked for.

    Args:
      experiment: what trains.
      count: how many. None is all; but of one process's CPU devices only as many as share the
        batches evenly and have at least 16 examples each.

    Raises:
      ValueError: if there are fewer.
    """
    every = jax.devices()
    if count is not None and not 1 <= count <= len(every):
        raise ValueError(
            f"{count} devices were asked for, but there are {len(every)} ({every[0].platform})."
        )
    if count is None and every[0].platform == "cpu" and jax.process_count() == 1:
        count = busy(len(every), experiment.batch_size, experiment.eval_batch_size)
    return every[:count]


def busy(most: int, *batches: int) -> int:
    """The largest number of cores, up to `most`, that share batches of these sizes evenly."""
    fitting = range(1, min(most, min(batches) // LEAST) + 1)
    return max((n for n in fitting if not any(size % n for size in batches)), default=1)
