"""The peak memory of a training step, measured in a process that does nothing else."""

import ctypes
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from versus.case import Case, RunSteps

STEPS = 20
STATUS = Path("/proc/self/status")


def measure_in_process(command: Sequence[str]) -> dict[str, float]:
    """Returns the megabytes that a fresh process measures; see `measure_peak_memory`."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    whole, steps = done.stdout.split()[-2:]
    return {"whole_mb": float(whole), "steps_mb": float(steps)}


def measure_peak_memory(case: Case, side: str) -> tuple[float, float]:
    """Measures by how many megabytes this process, or the memory of its GPU, grows at most.

    What is in memory before the model and its first step (libraries, the batch) is subtracted.

    Args:
      case: what to train, on one batch.
      side: "mmjax" or "torch".

    Returns:
      The peak from building the model to the last step, compilation included, and the peak of the
      later steps only, when the compiler has released its memory.
    """
    ours = case.make_mmjax()
    ours = ours._replace(batches=ours.batches[:1])
    make, read, reset = make_mmjax_probe() if side == "mmjax" else make_torch_probe()
    before = read("VmRSS")
    run = make(case, ours)
    run(2)
    first = read("VmHWM")
    reset()
    run(STEPS)
    second = read("VmHWM")
    return max(first, second) - before, second - before


MemoryProbe = tuple[Callable[[Case, Any], RunSteps], Callable[[str], float], Callable[[], None]]


def make_mmjax_probe() -> MemoryProbe:
    """Returns functions that make mmjax's side, read its memory and reset the peak."""
    import jax
    import jax.numpy as jnp

    from versus import compiled

    jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.zeros(1)))  # starts the backend

    def make(case: Case, ours: Any) -> RunSteps:
        return compiled.compile_single_step(ours, compiled.make_init(ours))[0]

    def on_device(what: str) -> float:
        key = "bytes_in_use" if what == "VmRSS" else "peak_bytes_in_use"
        return jax.devices()[0].memory_stats()[key] / 1e6

    if jax.default_backend() == "cpu":
        return make, read_host_memory, reset_host_peak
    return make, on_device, lambda: None  # JAX cannot reset the peak of a device


def make_torch_probe() -> MemoryProbe:
    """Returns the same functions for PyTorch."""
    import torch

    from versus.torch_steps import DEVICE

    torch.zeros(1, requires_grad=True, device=DEVICE).sum().backward()  # starts the backend

    def make(case: Case, ours: Any) -> RunSteps:
        return case.make_torch(ours.batches)

    def on_device(what: str) -> float:
        if what == "VmRSS":
            return torch.cuda.memory_allocated() / 1e6
        return torch.cuda.max_memory_allocated() / 1e6

    if DEVICE.type == "cpu":
        return make, read_host_memory, reset_host_peak
    return make, on_device, torch.cuda.reset_peak_memory_stats


def read_host_memory(what: str) -> float:
    """Reads the megabytes of this process: VmRSS is the current size, VmHWM the peak."""
    match = re.search(rf"^{what}:\s+(\d+) kB$", STATUS.read_text(), re.M)
    if match is None:
        raise OSError(f"{STATUS} has no line {what}; measuring memory needs Linux.")
    return int(match[1]) * 1024 / 1e6


def reset_host_peak() -> None:
    """Returns free memory to the system and resets the peak."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
