"""Which devices train: the cores of a CPU, as many as a batch keeps busy."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mmjax.data.pipeline import copy_aligned, make_on_device_feed
from mmjax.train.hardware import devices
from mmjax.train.hardware.devices import choose_devices, count_busy_cores, count_usable_cores
from mmjax.train.programs import Programs
from mmjax.types import Batch


@pytest.mark.parametrize(
    "most, batches, expected",
    [
        (8, (256, 256), 8),
        (8, (64, 256), 4),  # 16 examples each
        (8, (63, 256), 1),
        (8, (96, 256), 4),  # six would not share 256
        (3, (128, 256), 2),
        (2, (40, 256), 2),
        (2, (31,), 1),
        (2, (8, 256), 1),
        (1, (256,), 1),
    ],
)
def test_cores_share_a_batch_evenly_and_stay_busy(most, batches, expected):
    assert count_busy_cores(most, *batches) == expected


def test_devices_are_counted(toy):
    """Eight CPU devices; all that are asked for, else those that the batches keep busy."""
    experiment = toy.experiment(batch_size=64, eval_batch_size=128)
    assert choose_devices(experiment) == jax.devices()[:4]
    assert list(Programs(experiment, (0,)).devices) == jax.devices()[:4]
    assert choose_devices(experiment, 3) == jax.devices()[:3]
    assert choose_devices(experiment, 8) == jax.devices()
    for count in (0, -1, 9):
        with pytest.raises(ValueError, match=f"{count} devices were requested, but there are 8"):
            choose_devices(experiment, count)


def count_devices_in_processes(*cases, **environment):
    """Counts the devices after each piece of code, in a process of its own: JAX starts once."""
    code = (
        "import os, jax\n"
        "from mmjax.train.hardware.devices import expose_cpu_cores\n"
        f"for case in {cases!r}:\n"
        "    if not (child := os.fork()):  # nothing has started that a fork would miss\n"
        "        exec(case)\n"
        "        expose_cpu_cores()\n"
        "        print(jax.device_count(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    plain = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=plain | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


def test_each_core_is_a_device_unless_told_otherwise():
    assert count_devices_in_processes(
        "",
        "jax.config.update('jax_num_cpu_devices', 3)",
        "os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=6'",
        "jax.devices()",  # JAX has started
    ) == [count_usable_cores(), 3, 6, 1]
    assert count_devices_in_processes("", JAX_NUM_CPU_DEVICES="5") == [5]


@pytest.mark.parametrize(
    "quota, expected",
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8)],
)
def test_a_container_counts_the_cores_of_its_quota(quota, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(devices, "_CGROUP_QUOTA", tmp_path / "cpu.max")
    assert devices.count_usable_cores() == expected
    monkeypatch.setattr(devices, "_CGROUP_QUOTA", tmp_path / "none")
    assert devices.count_usable_cores() == 8


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32, bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (7, 5)])
def test_aligned_arrays_are_equal_and_aligned(dtype, shape):
    x = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    copy = copy_aligned(x)
    assert not x.size or copy.ctypes.data % 64 == 0
    assert copy.dtype == x.dtype
    np.testing.assert_array_equal(copy, x)


def test_cpu_devices_share_the_memory_of_a_split():
    """However many they are, the data lie in it once."""
    draw = np.random.default_rng(0).random((100, 33), np.float32)
    here = {"x": np.ones(100, bool)}
    feed = make_on_device_feed(Batch({"x": draw[1:]}, here, {}, {}, {}), jax.devices()[:4])
    ((data, _),) = feed.chunks([np.zeros((1, 1, 4), np.int32)])
    shards = data.inputs["x"].addressable_shards
    assert len(shards) == 4
    assert len({shard.data.unsafe_buffer_pointer() for shard in shards}) == 1
    np.testing.assert_array_equal(data.inputs["x"], draw[1:])
