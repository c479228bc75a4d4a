"""Configurations of generated data sets, whose names are folders on users' disks."""

import pytest

from mmjax.data.audio.spectrogram import Spectrogram
from mmjax.data.builtin.av_mnist_config import AvMnistConfig
from mmjax.data.builtin.av_mnist_config import Noise as AudioNoise
from mmjax.data.builtin.generation_config import GenerationConfig
from mmjax.data.builtin.multi_digits_config import MultiDigitsConfig, Pairing
from mmjax.data.builtin.polyglot_digits_config import Noise, PolyglotDigitsConfig

COMMON = {"seed": 7, "sizes": {"train": 3, "validation": 2, "test": 1}}


def test_names_differ_by_seed_and_sizes():
    names = {
        GenerationConfig(dataset="ramp", version="1", seed=seed, sizes={"train": size}).name
        for seed in (0, 1)
        for size in (1, 2)
    }
    assert len(names) == 4
    with pytest.raises(ValueError, match="seed is -1; it must be at least 0"):
        GenerationConfig(dataset="ramp", version="1", seed=-1, sizes={})
    with pytest.raises(ValueError, match="test is 0; a split needs at least 1 example"):
        GenerationConfig(dataset="ramp", version="1", seed=0, sizes={"test": 0})


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (
            AvMnistConfig(
                **COMMON,
                energy_removed=0.75,
                noise=AudioNoise(),
                spectrogram=Spectrogram(),
                split_by="take",
                skip_damaged=False,
            ),
            "seed7-dc09849d09ae",
        ),
        (
            MultiDigitsConfig(
                **COMMON, dataset="multi_mnist", first="mnist", second="mnist", pairing=Pairing()
            ),
            "seed7-1f6f8e875747",
        ),
        (
            PolyglotDigitsConfig(
                **COMMON,
                missing_modalities=0.1,
                missing_labels=0.1,
                missing_in_evaluation=0.0,
                noise=Noise(),
            ),
            "seed7-b903a031bdd4",
        ),
    ],
    ids=["av_mnist", "multi_digits", "polyglot_digits"],
)
def test_names_stay_those_of_data_already_on_disks(config, name):
    assert config.name == name
