"""Compiles the training program of an experiment for a slice, from shapes alone."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding

from mmjax.experiment import Experiment
from mmjax.inspection.flops import count_flops
from mmjax.inspection.model_parts import make_batch_shapes
from mmjax.train.hardware.compilation import compile_with_options
from mmjax.train.hardware.device_groups import DEVICE_AXIS, count_groups
from mmjax.train.hardware.parallel import make_train_program
from mmjax.train.hardware.placement import make_placement
from mmjax.train.steps.replica_steps import make_replica_train_step
from mmjax.train.steps.state import init_state
from mmjax.train.traced_hparams import make_constant_sweep
from mmjax.types import Batch
from scale.chips import Slice, estimate_collective_seconds
from scale.hlo import measure_traffic

STEPS = 4  # per dispatch
# At XLA's usual effort, the only one of JAX 0.12, the two towers take more than ten minutes on two
# busy cores.
COMPILER_OPTIONS = {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
# Without a GPU nothing can be tuned, and XLA then finds no tiles for some products that it would
# compute by Triton; so cuBLAS computes them all.
GPU_OPTIONS = COMPILER_OPTIONS | {"xla_gpu_enable_triton_gemm": False}
_WHOLE_HOST = {"v5e": "v5e:2x4", "v5p": "v5p:2x2x1", "v6e": "v6e:2x4"}
# XLA's descriptions of GPUs (`stream_executor.GpuTargetConfigProto`), by NVIDIA's data sheets, and
# the versions of cuDNN and CUDA to compile for.
_GPUS = {
    "h100": """
    platform_name: "CUDA"
    device_description_str: "NVIDIA H100 80GB HBM3"
    dnn_version_info { major: 9 minor: 8 }
    runtime_version { major: 12 minor: 8 }
    gpu_device_info {
      cuda_compute_capability { major: 9 }
      core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
      device_memory_size: 85899345920 memory_bandwidth: 3350000000000 l2_cache_size: 52428800
      threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
      registers_per_block_limit: 65536 registers_per_core_limit: 65536
      shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
      shared_memory_per_core: 233472
      block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
    }
"""
}


def list_devices(chips: Slice) -> list[Any]:
    """Lists the devices of a slice, which need not exist; one chip is the first of a host's."""
    if description := _GPUS.get(chips.kind):
        nodes, gpus = chips.axes
        topology = topologies.get_topology_desc(
            chips.kind, "cuda", target_config=description, topology=f"1x{nodes}x{gpus}"
        )
    else:
        name = chips.name if chips.size > 1 else _WHOLE_HOST[chips.kind]
        topology = topologies.get_topology_desc(name, "tpu")
    return list(topology.devices)[: chips.size]


def lower_training(e: Experiment, example: Batch, devices: Sequence[Any], seeds: int) -> Any:
    """Lowers the program that `mmjax run` trains with: many steps in a scan.

    The data of one seed are streamed. Those of several lie on every device, so that the seeds train
    in groups of devices.
    """
    layout: dict[str, Any] = {"replicas": seeds, "devices": devices, "sharded": seeds == 1}
    placement = make_placement(**layout, split=e.sharding == "fsdp")
    step = make_replica_train_step(
        make_constant_sweep(e), axis_name=None if placement.is_split else DEVICE_AXIS
    )
    program = make_train_program(step, **layout, split=placement.is_split)
    state = add_leading_axis(make_state_shapes(e, example), seeds)
    data = make_batch_shapes(example, e.batch_size * STEPS)
    if layout["sharded"]:
        data = add_leading_axis(data, len(devices))
    # A group's batch has as many examples per chip of the group as that of one chip.
    size = e.batch_size // count_groups(**layout)
    indices = jax.ShapeDtypeStruct((len(devices), seeds, STEPS, size), jnp.int32)
    if placement.is_split:
        state = jax.tree.map(place_shape, state, placement.of_states(state))
        data, indices = jax.tree.map(lambda x: place_shape(x, placement.data), (data, indices))
    return program.lower(({}, state), data, indices)


def add_leading_axis(shapes: Any, size: int) -> Any:
    """Returns shapes with an axis in front."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), shapes)


def place_shape(x: Any, sharding: NamedSharding) -> Any:
    """Returns a shape with its placement."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def make_state_shapes(e: Experiment, example: Batch) -> Any:
    """Returns the shapes of the training state."""
    parts = e.model, e.optimizer, e.balancer
    return jax.eval_shape(lambda key: init_state(*parts, example, key), jax.random.key(0))


def count_step_flops(e: Experiment, example: Batch) -> int:
    """Counts the operations of a step on the batch of one chip; see `mmjax.inspection.flops`."""
    step = make_replica_train_step(make_constant_sweep(e), axis_name=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = make_state_shapes(e, example)
        return count_flops(step, ({}, state), make_batch_shapes(example, e.batch_size))


def compile_for_slice(e: Experiment, example: Batch, chips: Slice, seeds: int) -> dict[str, Any]:
    """Compiles a training for a slice and returns what its text and XLA say, per chip and step."""
    begin = time.perf_counter()
    lowered = lower_training(e, example, list_devices(chips), seeds)
    options = GPU_OPTIONS if chips.kind in _GPUS else COMPILER_OPTIONS
    compiled = compile_with_options(lowered, options)
    seconds = time.perf_counter() - begin
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    traffic = measure_traffic(compiled.as_text())
    return {
        "chips": chips.size,
        "examples_per_chip": e.batch_size,
        "compile_seconds": round(seconds, 1),
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
        },
        "flops": count_step_flops(e, example),
        # Loop bodies once; nothing of GPUs.
        "xla": cost and {"flops": cost["flops"], "bytes": cost["bytes accessed"]},
        "hbm_bytes": traffic.memory / STEPS,
        "collective_bytes": {k: n / STEPS for k, n in traffic.collectives.items()},
        "collectives": {k: n / STEPS for k, n in traffic.counts.items()},
    }


def estimate_seconds(row: dict[str, Any], chips: Slice) -> dict[str, float]:
    """Estimates the seconds of a step from the limits of the chips.

    Returns:
      "compute", "memory" and "collectives", each alone at the published limit; "least": the largest
      of them, if they overlap entirely; "most": collectives after everything else.
    """
    compute = row["flops"] / chips.chip.flops
    memory = row["hbm_bytes"] / chips.chip.bandwidth
    collectives = sum(
        estimate_collective_seconds(chips, kind, size, row["collectives"][kind])
        for kind, size in row["collective_bytes"].items()
    )
    return {
        "compute": compute,
        "memory": memory,
        "collectives": collectives,
        "least": max(compute, memory, collectives),
        "most": max(compute, memory) + collectives,
    }
