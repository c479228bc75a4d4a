"""Runs whose arrays are split over devices: checkpoints under any sharding, results, processes."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmjax
from mmjax import balance
from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.pretrained import LoRA
from mmjax.sharing import HardSharing
from mmjax.train.best_variables import evaluate_best
from mmjax.train.checkpoint import Checkpoints, hash_arrays
from mmjax.train.hardware import parallel
from mmjax.train.hardware.placement import make_placement
from mmjax.train.hardware.split_arrays import is_split_over_devices
from mmjax.train.loop import fit
from mmjax.train.programs import Programs
from mmjax.train.run_arms import run
from mmjax.types import Tokens
from tests.train.processes import compare_one_process_with_two


class NormedEncoder(nn.Module):
    """An encoder with batch norm."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        x = nn.relu(nn.BatchNorm()(nn.Dense(128)(x)))
        return Tokens(x[:, None], jnp.ones((len(x), 1), bool))


def wide_model(vector=None):
    """A model some of whose kernels are split over two to eight devices."""
    return Model(
        encoders={"vector": vector or MLPEncoder((128, 64)), "sequence": RecurrentEncoder(width=5)},
        fusion=Concat(),
        heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
        sharing=HardSharing((64,)),
    )


def wide_experiment(toy, **options):
    defaults = {"model": wide_model(), "optimizer": optax.sgd(0.02, momentum=0.9), "epochs": 1}
    return toy.experiment(**(defaults | options))


LAYOUTS = [(True, 8), (True, 2), (True, 1), (False, 4)]  # whether arrays are split; devices


@pytest.mark.parametrize(("split", "devices"), LAYOUTS)
def test_arrays_are_restored_on_other_devices(split, devices, tmp_path):
    """Bit for bit, whether split or whole before and after."""
    rng = np.random.default_rng(0)
    tree = {
        "kernel": rng.normal(size=(2, 64, 128)).astype(np.float32),
        "odd": rng.normal(size=(2, 81, 81)).astype(np.float32),
        "step": np.full(2, 7, np.int32),
        "key": jax.random.split(jax.random.key(3)),
    }
    before = make_placement(2, jax.devices()[:devices], sharded=True, split=split)
    placed = jax.device_put(tree, before.of_states(tree))
    assert is_split_over_devices(placed["kernel"]) == (split and devices > 1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, placed)
    checkpoints.close()
    for split_after, devices_after in LAYOUTS:
        after = make_placement(2, jax.devices()[:devices_after], sharded=True, split=split_after)
        like = jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            tree,
            after.of_states(tree),
        )
        restored = Checkpoints(tmp_path).restore(like)
        assert hash_arrays(restored) == hash_arrays(tree)
        for name, x in restored.items():
            assert x.sharding.is_equivalent_to(like[name].sharding, x.ndim)


@pytest.mark.slow
@pytest.mark.parametrize(("platforms", "stream"), [({"cpu"}, False), (set(), True)])
def test_seeds_train_on_split_arrays(platforms, stream, toy, tmp_path, monkeypatch):
    """Two seeds, batch norm, averages, dropped modalities: as with whole arrays on one device.

    If batches are streamed, both seeds train on all devices, here at once; else, each on four.
    """
    monkeypatch.setattr(parallel, "SEQUENTIAL_PLATFORMS", platforms)
    options = {
        "model": wide_model(NormedEncoder()),
        "balancer": balance.pcgrad(),
        "ema": 0.9,
        "modality_dropout": 0.2,
        "stream": stream,
    }
    fitted = {}
    for sharding, devices in (("replicated", 1), ("fsdp", 8)):
        e = wide_experiment(toy, sharding=sharding, **options)
        fitted[sharding] = fit(
            e, tmp_path / sharding, seeds=(0, 1), devices=jax.devices()[:devices]
        )
    one, many = fitted["replicated"].state, fitted["fsdp"].state
    assert any(map(is_split_over_devices, jax.tree.leaves(many.train.averages)))
    assert any(map(is_split_over_devices, jax.tree.leaves(many.best_params)))
    fields = [(s.train.params, s.train.variables, s.best, s.train.averages) for s in (one, many)]
    chex.assert_trees_all_close(*jax.device_get(fields), atol=2e-5)
    for a, b in zip(fitted["fsdp"].test, fitted["replicated"].test, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.slow
def test_micro_batches_and_recomputed_modules_work_on_split_arrays(toy, tmp_path):
    """As large batches on one device."""
    model = dataclasses.replace(wide_model(), remat=("encoders_vector",))
    plain = wide_experiment(toy, balancer=balance.upgrad())
    frugal = dataclasses.replace(plain, model=model, sharding="fsdp", accumulate=2)
    one = fit(plain, tmp_path / "plain", devices=jax.devices()[:1]).state.train.params
    many = fit(frugal, tmp_path / "frugal", devices=jax.devices()[:4]).state.train.params
    assert any(map(is_split_over_devices, jax.tree.leaves(many)))
    chex.assert_trees_all_close(*jax.device_get((one, many)), atol=2e-5)


@pytest.mark.slow
def test_a_run_resumes_under_another_sharding_and_is_used_as_any_other(toy, tmp_path):
    """Frozen parts are split too; the run is evaluated, loaded and resumed with whole arrays.

    The parameters before the first step are the same bits.
    """
    options = {"trainable": ("sharing*", "heads_*", "encoders_vector/Dense_1/*")}

    def make(sharding, epochs=2):
        return wide_experiment(toy, sharding=sharding, epochs=epochs, **options)

    begun = [Programs(make(s), (0,), jax.devices()[:4]).init() for s in ("replicated", "fsdp")]
    assert any(map(is_split_over_devices, jax.tree.leaves(begun[1].train)))
    assert hash_arrays(begun[0]) == hash_arrays(begun[1])
    whole = run({"a": lambda: make("replicated")}, workdir=tmp_path / "whole", devices=1)["a"]
    split = run({"a": lambda: make("fsdp")}, workdir=tmp_path / "split", devices=4)["a"]
    (wanted,), (found,) = whole["seeds"].values(), split["seeds"].values()
    assert found["test"] == pytest.approx(wanted["test"], rel=1e-4)
    assert split["frozen_sha256"] == whole["frozen_sha256"]
    again = evaluate_best(make("replicated"), tmp_path / "split" / "a", seeds=(0,), devices=1)
    assert again[0] == pytest.approx(found["test"], rel=1e-5)
    trained = mmjax.load(tmp_path / "split", "a", experiment=make("fsdp"))
    assert trained.predict(toy.batch(9, 5))["kind"].probabilities.shape == (9, 4)
    assert trained.evaluate(toy.dataset()) == pytest.approx(found["test"], rel=1e-5)
    fit(make("fsdp", 1), tmp_path / "moved", devices=jax.devices()[:4])
    moved = fit(make("replicated"), tmp_path / "moved", devices=jax.devices()[:1])
    assert moved.test[0] == pytest.approx(wanted["test"], rel=1e-4)


PROGRAM = """
import json, sys
from pathlib import Path
import jax
count, number, port, directory, stream = json.loads(sys.argv[1])
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", count, number)
import numpy as np, optax
from tests.conftest import toy_experiment
from tests.train.test_sharded_runs import OPTIONS, wide_model
jax.config.update("jax_num_cpu_devices", 4 // count)
from mmjax import balance
from mmjax.train import fit
from mmjax.train.hardware.multihost import fetch_arrays
from mmjax.train.hardware.split_arrays import is_split_over_devices
options = dict(model=wide_model(), optimizer=optax.sgd(0.02), balancer=balance.pcgrad())
options |= dict(stream=stream, sharding="fsdp", ema=0.9, epochs=1) | OPTIONS[name]
directory = Path(directory)
fit(toy_experiment(**options), directory, devices=jax.devices())  # and continues
fitted = fit(toy_experiment(**options | {"epochs": 2}), directory, devices=jax.devices())
assert any(map(is_split_over_devices, jax.tree.leaves(fitted.state.train.params)))
leaves = jax.tree.leaves(fetch_arrays((fitted.state.train.params, fitted.best)))
np.savez(directory.parent / f"{directory.name}-{number}.npz", *leaves)
Path(directory.parent / f"{directory.name}-{number}.json").write_text(json.dumps(fitted.test))
"""


TRAINABLE = ("encoders_sequence/*", "sharing*", "heads_*")
OPTIONS = {  # of runs of several processes
    "all parameters train": {},
    "cached tokens": {"trainable": TRAINABLE, "cache_frozen": True},
    "low-rank updates": {
        "trainable": TRAINABLE,
        "lora": {"encoders_vector/Dense_1/kernel": LoRA(32)},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_split_arrays_as_one(name, tmp_path):
    """Two processes of two devices each resume, and give the parameters of one process of four."""
    compare_one_process_with_two(f"name = {name!r}{PROGRAM}", tmp_path, timeout=600)
