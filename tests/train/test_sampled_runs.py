"""A run with a sampler: the same bits from a stream, and after an interruption within an epoch."""

import shutil

import jax
import pytest

from mmjax.data import ClassBalanced
from mmjax.train.checkpoint import hash_arrays
from mmjax.train.loop import fit


@pytest.mark.slow
def test_a_sampled_run_is_the_same_streamed_and_resumed_within_an_epoch(toy, tmp_path):
    sampler = ClassBalanced("kind")
    whole = fit(toy.experiment(sampler=sampler), tmp_path / "whole", checkpoint_every=4)
    streamed = fit(toy.experiment(sampler=sampler, stream=True), tmp_path / "streamed")
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "24")
    steps = sorted(int(p.name) for p in (tmp_path / "resumed" / "checkpoints").iterdir())
    assert steps[-1] == 20  # of epochs of 8 steps
    resumed = fit(toy.experiment(sampler=sampler), tmp_path / "resumed")
    states = [hash_arrays(jax.device_get(run.state)) for run in (whole, streamed, resumed)]
    assert len(set(states)) == 1
    plain = fit(toy.experiment(), tmp_path / "plain")
    assert hash_arrays(jax.device_get(plain.state)) != states[0]
