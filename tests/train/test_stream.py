"""Augmented training is one run: streamed or not, on any devices, resumed, in several processes."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.data import missing
from mmjax.data.augment import gaussian_noise, make_example_augmentation, spec_augment
from mmjax.data.dataset import Dataset
from mmjax.data.pipeline import split_over_devices
from mmjax.data.sampling.batch_order import make_train_indices
from mmjax.train.checkpoint import hash_arrays
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.loop import fit
from mmjax.train.programs import Programs
from mmjax.train.split_evaluation import evaluate_split
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import augment_batch, make_train_step
from tests.train.processes import compare_one_process_with_two

NOISE = {"vector": gaussian_noise(0.3), "sequence": gaussian_noise(0.3)}


class Seen:
    """A source that is read from afar: it counts what is asked for at once."""

    def __init__(self, source):
        self.source, self.most = source, 0

    def __len__(self):
        return len(self.source)

    def take(self, indices):
        self.most = max(self.most, len(indices))
        return self.source.take(indices)


def from_afar(data):
    """The data set, none of whose splits lies in memory."""
    seen = {name: Seen(source) for name, source in data.splits.items()}
    return Dataset(data.name, data.modalities, data.tasks, seen)


@pytest.mark.slow
def test_augmented_training_on_incomplete_data_streams_and_resumes_to_the_same_bits(toy, tmp_path):
    """No split is read whole: 4 batches a dispatch at most. Evaluation sees data as they are."""
    lost = {"modalities": 0.5, "labels": {"size": 0.3}, "seed": 3}
    options = {"augment": NOISE, "modality_dropout": 0.3, "epochs": 2, "eval_batch_size": 8}
    data = missing.at_random(toy.dataset(), **lost)
    whole = fit(toy.experiment(data=data, **options), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "streamed")
    shutil.rmtree(tmp_path / "streamed" / "checkpoints" / "16")  # continues from the first epoch
    seen = from_afar(toy.dataset())
    afar = missing.at_random(seen, **lost)
    again = fit(toy.experiment(data=afar, stream=True, **options), tmp_path / "streamed")
    assert hash_arrays(jax.device_get(again.state)) == hash_arrays(jax.device_get(whole.state))
    assert again.test == whole.test
    most = {name: source.most for name, source in seen.splits.items()}
    assert most == {"train": 64, "validation": 32, "test": 32}
    plain = Programs(toy.experiment(), (0,), jax.devices())
    (found,) = evaluate_split(plain, whole.state.best, "test")
    assert found == pytest.approx(whole.test[0], rel=1e-5)


@pytest.mark.slow
def test_an_examples_draws_are_those_of_its_place_in_the_whole_batch(toy):
    """On one device and on four: the same bits, and no two examples alike."""
    batch = jax.tree.map(jnp.asarray, toy.batch(16, 0))
    augments = {"vector": gaussian_noise(0.3), "sequence": spec_augment(time=3, frequency=2)}
    apply, key = make_example_augmentation(augments, 0.4), jax.random.key(3)
    alone = jax.jit(lambda b: augment_batch(apply, key, b, None))
    parts = jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), batch)
    four = jax.pmap(
        lambda b: augment_batch(apply, key, b, DEVICE_AXIS),
        axis_name=DEVICE_AXIS,
        devices=jax.devices()[:4],
    )(parts)
    chex.assert_trees_all_equal(jax.tree.map(np.concatenate, four), alone(batch))
    same = jax.tree.map(lambda x: jnp.repeat(x[:1], 16, axis=0), batch)
    same = same._replace(present=jax.tree.map(jnp.ones_like, same.present))
    noise = np.asarray(alone(same).inputs["vector"])
    assert len({row.tobytes() for row in noise}) == 16


def record():
    """An optimizer that leaves the parameters and sums up the gradients in its state."""

    def update(grads, state, params=None):
        return jax.tree.map(jnp.zeros_like, grads), jax.tree.map(jnp.add, grads, state)

    return optax.GradientTransformation(lambda p: jax.tree.map(jnp.zeros_like, p), update)


@pytest.mark.slow
def test_the_step_augments_by_seed_and_place_alike_on_one_and_eight_devices(toy):
    """Two seeds with the same parameters and examples: what differs is the augmentation."""
    model, data = toy.model(), toy.batch(64, 0)
    optimizer, balancer = record(), balance.equal()
    example = jax.tree.map(jnp.asarray, data)
    one = jax.jit(lambda key: init_state(model, optimizer, balancer, example, key))(
        jax.random.key(0)
    )
    step = make_train_step(
        model,
        optimizer,
        balancer,
        axis_name=DEVICE_AXIS,
        augment=make_example_augmentation(NOISE, 0.4),
    )
    indices = np.repeat(make_train_indices([0], 64, 16, 0, 4), 2, axis=0)
    sums = []
    for devices in (1, 8):
        states = jax.tree.map(lambda x: jnp.stack([x, x]), one)
        states = states._replace(key=jax.random.split(jax.random.key(5)))
        program = make_train_program(step, replicas=2, devices=jax.devices()[:devices])
        sums.append(program(states, data, split_over_devices(indices, devices))[0].opt_state)
    chex.assert_trees_all_close(*sums, atol=1e-5)
    assert max(float(jnp.abs(x[0] - x[1]).max()) for x in jax.tree.leaves(sums[0])) > 1e-3


def test_names_that_the_data_do_not_have_are_refused(toy):
    with pytest.raises(ValueError, match=r"augment names the modality 'vectr', .*'vector'"):
        check_experiment(toy.experiment(augment={"vectr": gaussian_noise(0.1)}), 1)
    with pytest.raises(ValueError, match=r"modality_dropout names the modality 'sound'"):
        check_experiment(toy.experiment(modality_dropout={"sound": 0.1}), 1)
    with pytest.raises(ValueError, match="workers is -1; it must be 0 or more"):
        toy.experiment(workers=-1)


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
jax.config.update("jax_num_cpu_devices", 4 // count)
from mmjax.data.augment import gaussian_noise
from mmjax.train import fit
options = dict(optimizer=optax.sgd(0.05), stream=stream, modality_dropout=0.3)
options["augment"] = {"vector": gaussian_noise(0.1)}
directory = Path(directory)
fit(toy_experiment(epochs=1, **options), directory)  # and continues from its checkpoint
fitted = fit(toy_experiment(epochs=2, **options), directory)
leaves = jax.tree.leaves(jax.device_get(fitted.state.train.params))
np.savez(directory.parent / f"{directory.name}-{number}.npz", *leaves)
Path(directory.parent / f"{directory.name}-{number}.json").write_text(json.dumps(fitted.test))
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Two processes of two devices each give the parameters of one process of four."""
    compare_one_process_with_two(PROGRAM, tmp_path, timeout=300)
    logs = {d: (tmp_path / d / "metrics-seed0.jsonl").read_text() for d in ("one", "two")}
    assert len(logs["one"].splitlines()) == len(logs["two"].splitlines())
