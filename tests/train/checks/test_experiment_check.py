"""What is refused before training, and directories as users write them."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from mmjax import Experiment, Model, fit
from mmjax.data import from_arrays
from mmjax.encoders import MLPEncoder, TextEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.train.checks.experiment_check import check_experiment

pytestmark = pytest.mark.filterwarnings("ignore:.* have the same inputs")


def make_experiment(token, split="train"):
    splits = {}
    for name in ("train", "validation", "test"):
        ids = [np.array([1, 2, token if i == 5 and name == split else 3]) for i in range(64)]
        splits[name] = {"x": ids, "y": np.arange(64) % 2}
    model = Model(
        {"x": TextEncoder(vocabulary=100, encoder=MLPEncoder((8,)))},
        Concat(),
        {"y": Classification(2)},
    )
    data = from_arrays(splits, inputs=("x",), targets=("y",))
    return Experiment(data=data, model=model, optimizer=optax.sgd(0.1), batch_size=32)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "token, fix", [(100, "set vocabulary to 101"), (-1, "no token is negative")]
)
def test_tokens_without_a_vector_are_refused_by_row(token, fix, split):
    message = (
        rf"split '{split}': modality 'x' has the token {token} in row 5, but its TextEncoder has "
        rf"vectors for 0 to 99; {fix}"
    )
    with pytest.raises(ValueError, match=message):
        check_experiment(make_experiment(token, split), 1)


def test_the_largest_token_is_taken():
    check_experiment(make_experiment(99), 1)


@pytest.mark.slow
def test_directories_are_strings_too(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    experiment = dataclasses.replace(toy.experiment(), epochs=1)
    fit(experiment, "~/run", devices=jax.devices()[:1])
    assert (tmp_path / "run" / "checkpoints").is_dir()
