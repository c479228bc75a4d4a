"""The peak memory of a training step, by a process that does nothing else."""

import ctypes
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from versus.case import Case, Run

STEPS = 20
STATUS = Path("/proc/self/status")


def of_process(command: Sequence[str]) -> dict[str, float]:
    """Megabytes that a fresh process finds; see `measure`."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole, steps = done.stdout.split()[-2:]
    return {"whole_mb": float(whole), "steps_mb": float(steps)}


def measure(case: Case, side: str) -> tuple[float, float]:
    """Megabytes by which this process grows at most; on a GPU, of the device's memory.

    What is there before the model and its first step, libraries and the batch included, is taken
    off.

    Args:
      case: what to train, on one batch.
      side: "mmjax" or "torch".

    Returns:
      The most from building the model to the last of some steps, in which mmjax compiles, and the
      most while steps are made, by when a compiler has given back what it can.
    """
    ours = case.ours()
    ours = ours._replace(batches=ours.batches[:1])
    make, now, reset = of_mmjax() if side == "mmjax" else of_torch()
    before = now("VmRSS")
    run = make(case, ours)
    run(2)
    first = now("VmHWM")
    reset()
    run(STEPS)
    second = now("VmHWM")
    return max(first, second) - before, second - before


Side = tuple[Callable[[Case, Any], Run], Callable[[str], float], Callable[[], None]]


def of_mmjax() -> Side:
    """What makes mmjax's side, tells its memory and forgets the peak."""
    import jax
    import jax.numpy as jnp

    from versus import compiled

    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(1)))  # the backend is up

    def make(case: Case, ours: Any) -> Run:
        return compiled.single(ours, compiled.initial(ours))[0]

    def on_device(what: str) -> float:
        key = "bytes_in_use" if what == "VmRSS" else "peak_bytes_in_use"
        return jax.devices()[0].memory_stats()[key] / 1e6

    if jax.default_backend() == "cpu":
        return make, of_host, forget_host
    return make, on_device, lambda: None  # JAX cannot forget a device's peak


def of_torch() -> Side:
    """The same of PyTorch."""
    import torch

    from versus.torch_steps import DEVICE

    torch.zeros(1, requires_grad=True, device=DEVICE).sum().backward()  # the backend is up

    def make(case: Case, ours: Any) -> Run:
        return case.plain(ours.batches)

    def on_device(what: str) -> float:
        if what == "VmRSS":
            return torch.cuda.memory_allocated() / 1e6
        return torch.cuda.max_memory_allocated() / 1e6

    if DEVICE.type == "cpu":
        return make, of_host, forget_host
    return make, on_device, torch.cuda.reset_peak_memory_stats


def of_host(what: str) -> float:
    """Megabytes of this process: VmRSS is what it holds now, VmHWM the most so far."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", STATUS.read_text(), re.M)
    if found is None:
        raise OSError(f"{STATUS} does not tell {what}.")
    return int(found[1]) * 1024 / 1e6


def forget_host() -> None:
    """Gives free memory back to the system and lets the peak begin anew."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
