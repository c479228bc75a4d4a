"""Trains on sequences of several lengths: who speaks, from file to model in 20 lines.

    pip install --no-deps aeon    # or JAPANESE_VOWELS=the folder of the files
    mmjax run experiments/tutorial_japanese_vowels.py --workdir runs/vowels

Nine men say two vowels; each of the 640 recordings is a sequence of 7 to 29 vectors of 12 numbers
(Kudo et al., Pattern Recognition Letters 1999, who report an accuracy of 0.941).
"""

from typing import Any

import numpy as np
import optax
from package_data import find_package_file

from mmjax import Dataset, Experiment, Model
from mmjax.config import auto_config
from mmjax.data import Split, from_arrays, split_arrays
from mmjax.encoders import RecurrentEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification


def read_ts(part: str) -> dict[str, list[Any]]:
    """Reads the series [time features], which differ in length, and the labels of a file."""
    place = ("JAPANESE_VOWELS", "aeon", "datasets/data/JapaneseVowels")
    lines = find_package_file(*place, f"JapaneseVowels_{part}.ts").read_text().split("@data")[1]
    rows = [line.split(":") for line in lines.split()]  # one part per feature, and the label
    series = [np.array([part.split(",") for part in row[:-1]], float).T for row in rows]
    return {"voice": series, "speaker": [row[-1] for row in rows]}


def japanese_vowels() -> Dataset:
    """Reads both files; a fifth of the first, of each speaker alike, is for validation."""
    split = Split((("train", 0.8), ("validation", 0.2)), stratify="speaker")
    parts = {**split_arrays(read_ts("TRAIN"), split), "test": read_ts("TEST")}
    return from_arrays(parts, inputs=["voice"], targets=["speaker"], name="japanese_vowels")


@auto_config
def experiment() -> Experiment:
    """Builds a recurrent network that reads in both directions."""
    return Experiment(
        data=japanese_vowels(),
        model=Model(
            encoders={"voice": RecurrentEncoder(width=64, bidirectional=True)},
            fusion=Concat(),
            heads={"speaker": Classification(9)},
        ),
        optimizer=optax.adam(3e-3),
        epochs=30,
        batch_size=32,
    )
