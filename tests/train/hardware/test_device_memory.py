"""Memory is estimated before anything runs, and a shortage is explained."""

import jax
import numpy as np
import optax
import pytest

from mmjax import balance, fit
from mmjax.train.hardware import device_memory
from mmjax.train.hardware.device_memory import (
    MemoryShortError,
    get_memory_limit,
    measure_peak_memory,
    translate_memory_errors,
)
from mmjax.train.memory_estimate import estimate_memory, print_memory
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule


@pytest.fixture
def limit(monkeypatch, tmp_path):
    """Lets the control group permit so many bytes."""

    def set_limit(size):
        path = tmp_path / "memory.max"
        path.write_text(f"{size}\n")
        monkeypatch.setattr(device_memory, "_CGROUP_LIMIT", path)

    return set_limit


def test_cpu_devices_share_the_memory_of_the_control_group(limit):
    limit(8_000_000)
    assert get_memory_limit(jax.devices()[:1]) == 8_000_000
    assert get_memory_limit(jax.devices()[:4]) == 2_000_000
    limit("max")
    assert get_memory_limit(jax.devices()[:1]) > 2**28


def test_a_device_that_ran_out_of_memory_is_explained():
    short, other = "RESOURCE_EXHAUSTED: Out of memory: 9 bytes\nmore", "INTERNAL: another error"
    message = r"1 replica ran out of memory: RESOURCE_EXHAUSTED: .* 9 bytes\. .*accumulate=4"
    with pytest.raises(MemoryShortError, match=message), translate_memory_errors(1):
        raise jax.errors.JaxRuntimeError(short)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), translate_memory_errors(1):
        raise jax.errors.JaxRuntimeError(other)


def test_the_measured_peak_is_that_of_the_process():
    held = np.ones(2**24)
    assert measure_peak_memory(jax.devices()) > held.nbytes


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused_before_it_trains(toy, tmp_path, limit):
    limit(50_000)
    with pytest.raises(MemoryShortError, match=r"needs .* MB on a device, which can provide 0\.1"):
        fit(toy.experiment(), tmp_path, devices=jax.devices()[:1])
    assert not list(tmp_path.glob("checkpoints/*"))


def get_arrays(toy):
    return [
        x
        for source in toy.dataset().splits.values()
        for x in jax.tree.leaves(source.batch._replace(weights={}))
    ]


@pytest.mark.slow
def test_the_parts_are_what_a_training_holds(toy, capsys, limit):
    """Against the arrays of a state, of the data, and the arguments that XLA counts."""
    experiment = toy.experiment(optimizer=optax.adam(1e-2), balancer=balance.pcgrad(), ema=0.9)
    programs = Programs(experiment, (0, 1, 2), jax.devices()[:2])
    estimated = estimate_memory(programs)
    parts = {part.name: part for part in estimated}
    state = programs.init()

    def count(tree):
        return sum(x.nbytes for x in jax.tree.leaves(tree))

    params = count(state.train.params)
    assert parts["parameters"].per_device == params
    assert parts["optimizer state"].per_device == count(state.train.opt_state) > 2 * params
    assert parts["averages"].per_device == count(state.train.averages)
    assert parts["best variables so far"].per_device == 2 * params  # averages, and as trained
    assert parts["data"].per_device == parts["data"].total == sum(x.nbytes for x in get_arrays(toy))
    assert parts["parameters"].total == 2 * params
    assert parts["activations, gradients, Jacobian"].per_device > 0
    assert parts["peak"].per_device == sum(part.per_device for part in estimated[:-1])

    plan = Schedule(experiment, programs.seeds, programs.splits.size("train"))
    data, indices = next(programs.splits.feed("train").chunks(plan.dispatches))
    planned = programs.peak_bytes(data, indices)
    assert len(programs.compiled) == 1  # the program that was compiled for shapes
    # The device also holds the best variables, the other splits, and its copy of the train split.
    assert 0.5 * planned < parts["peak"].per_device < 3 * planned
    assert programs.train(state.train, data, indices)[0].step.tolist() == [4, 4, 4]

    print_memory(estimated, "Memory", programs.devices)
    assert "It fits." in capsys.readouterr().out
    limit(1000)
    print_memory(estimated, "Memory", programs.devices)
    assert "It does not fit. To save memory" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"stream": True}, {"trainable": ("heads_*",)}])
def test_streams_and_frozen_variables_have_parts(toy, options):
    programs = Programs(toy.experiment(**options), (0,), jax.devices()[:2])
    parts = {part.name: part for part in estimate_memory(programs)}
    example = sum(x.nbytes for x in jax.tree.leaves(toy.batch(1, 0)))
    if "stream" in options:  # two dispatches of four batches of 16, split over devices
        assert parts["data"].per_device == 2 * 4 * 8 * example
        assert parts["data"].total == 2 * parts["data"].per_device
    else:
        everything = sum(x.size for x in jax.tree.leaves(programs.initial.variable_shapes))
        trained = parts["parameters"].per_device + parts["frozen variables"].per_device
        assert trained == 4 * everything
        assert "frozen" not in programs.initial.__dict__  # no array was made
