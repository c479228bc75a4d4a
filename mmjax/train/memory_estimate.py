"""Estimates the memory of a training on its devices, before anything runs on them."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.printing.console import print_paragraph, print_table, print_text
from mmjax.printing.escapes import escape_markdown, format_markdown_table
from mmjax.printing.formatting import format_with_unit
from mmjax.train.hardware.device_memory import MEMORY_FIXES, get_memory_limit
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule
from mmjax.types import Batch


class MemoryPart(NamedTuple):
    """Memory of one kind of arrays.

    Attributes:
      name: what it holds.
      per_device: bytes on one device.
      total: bytes on all devices of the training.
    """

    name: str
    per_device: int
    total: int


def estimate_memory(programs: Programs) -> tuple[MemoryPart, ...]:
    """Estimates the memory of a training: of what stays on the devices, and of a step.

    The program of the training is compiled, but neither a state nor data are put on a device. What
    a step needs besides, such as activations, gradients and rows of the Jacobian, is what the
    compiler has planned. CPU devices share one copy of data that are not streamed.

    Args:
      programs: the programs of the training.

    Returns:
      The parts, without those that are empty, and their sum, "peak".
    """
    state, count = programs.initial.shapes, len(programs.devices)
    data, indices = trace_dispatch(programs)
    compiled = programs.compile(data, indices)
    best = state.best_params, state.best_variables, state.best_raw
    trees = {
        "parameters": state.train.params,
        "other variables": state.train.variables,
        "frozen variables": programs.initial.frozen_shapes,
        "optimizer state": state.train.opt_state,
        "balancer state": state.train.balancer_state,
        "averages": state.train.averages,
        "best variables so far": best,
    }
    sizes = {name: count_bytes_per_device(tree) for name, tree in trees.items()}
    sizes["data"] = _count_data_bytes(programs, data)
    temporary = compiled.memory_analysis().temp_size_in_bytes
    sizes["activations, gradients, Jacobian"] = int(temporary)
    parts, peak = [], MemoryPart("peak", 0, 0)
    for name, size in sizes.items():
        # CPU devices share one copy of data that are not streamed.
        total = size if name == "data" and programs.shares_data else size * count
        peak = MemoryPart("peak", peak.per_device + size, peak.total + total)
        if size:
            parts.append(MemoryPart(name, size, total))
    return (*parts, peak)


def trace_dispatch(programs: Programs) -> tuple[Batch, jax.ShapeDtypeStruct]:
    """Returns the shapes of the first dispatch's data and indices; nothing is read but an example.

    Args:
      programs: the programs of the training.
    """
    e, devices, replicas = programs.experiment, len(programs.devices), len(programs.seeds)
    examples = programs.splits.size("train")
    start, stop = Schedule(e, programs.seeds, examples).ranges[0]
    shape = (devices, replicas, stop - start, e.batch_size // devices)
    data = programs.trace_examples(np.prod(shape[1:]).item() if e.stream else examples)
    if e.stream:
        data = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype, sharding=x.sharding), data
        )
    return data, jax.ShapeDtypeStruct(shape, jnp.int32)


def _count_data_bytes(programs: Programs, dispatch: Batch) -> int:
    """Counts the bytes of data on a device: all splits, or two dispatches of a stream."""
    if programs.experiment.stream:
        # One chunk is computed with, and one waits.
        return 2 * count_bytes_per_device(dispatch) // len(programs.devices)
    total = 0
    for name in ("train", "validation", "test"):
        total += count_bytes_per_device(programs.trace_examples(programs.splits.size(name)))
    return total


def count_bytes_per_device(tree: Any) -> int:
    """Counts the bytes of arrays on one device, from their shapes, types and shardings.

    Example:
      >>> count_bytes_per_device({"w": jax.ShapeDtypeStruct((3, 2), jnp.float32)})
      24
    """
    total = 0
    for x in jax.tree.leaves(tree):
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        total += int(np.prod(shape)) * x.dtype.itemsize
    return total


def print_memory(parts: Sequence[MemoryPart], title: str, devices: Sequence[jax.Device]) -> None:
    """Prints the parts, as Markdown if the output is not a terminal, and whether they fit.

    Args:
      parts: those of `estimate_memory`.
      title: of the table.
      devices: the devices of the training.
    """
    rows, limit = format_memory_rows(parts), get_memory_limit(devices)
    if sys.stdout.isatty():
        print_text()
        print_table(rows, title)
    else:
        table = format_markdown_table(rows, 1, escape=True)
        print_text(f"### {escape_markdown(title)}\n\n{table}")
    fits = parts[-1].total <= limit * len(devices)
    verdict = "It fits." if fits else f"It does not fit. {MEMORY_FIXES}"
    device = f"{devices[0].device_kind} with {_format_bytes(limit)}"
    print_paragraph(f"{len(devices)} x {device} each. {verdict}\n")


def format_memory_rows(parts: Sequence[MemoryPart]) -> list[list[str]]:
    """Formats the parts as rows of a table, with a header.

    Example:
      >>> format_memory_rows([MemoryPart("peak", 2_000_000, 4_000_000)])
      [['memory', 'per device', 'on all devices'], ['peak', '2.000 MB', '4.000 MB']]
    """
    rows = [[p.name, _format_bytes(p.per_device), _format_bytes(p.total)] for p in parts]
    return [["memory", "per device", "on all devices"], *rows]


def _format_bytes(size: int) -> str:
    text = format_with_unit(size)
    return f"{text} B" if text[-1].isdecimal() else f"{text}B"
