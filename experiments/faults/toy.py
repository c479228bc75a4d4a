"""A small experiment with every kind of path, for the fuzzers, which never train it."""

import functools

import numpy as np
import optax

from mmjax import Batch, Experiment, Model, balance, data, encoders, fusion, heads, losses
from mmjax.config import auto_config
from mmjax.data.dataset import Arrays, Dataset, Modality, Task


@functools.cache
def make_splits(size: int) -> dict[str, Arrays]:
    """Makes splits with an image, a sequence and two targets of noise."""
    rng, splits = np.random.default_rng(0), {}
    for split in ("train", "validation", "test"):
        inputs = {
            "image": rng.random((size, 8, 8, 1), np.float32),
            "audio": rng.random((size, 6, 4), np.float32),
        }
        complete = np.ones(size, bool)
        splits[split] = Arrays(
            Batch(
                inputs,
                dict.fromkeys(inputs, complete),
                {"audio": rng.integers(1, 7, size).astype(np.int32)},
                {"digit": np.arange(size) % 10, "rate": rng.random(size, np.float32)},
                {"digit": complete, "rate": complete},
            )
        )
    return splits


def noise(size: int = 40, name: str = "noise") -> Dataset:
    """Makes a data set of noise with `size` examples per split."""
    if not 10 <= size <= 1000:
        raise ValueError(f"size is {size}; it must be 10 to 1000.")
    return Dataset(
        name,
        {"image": Modality((8, 8, 1)), "audio": Modality((6, 4), sequence=True)},
        {"digit": Task("classification", tuple("0123456789")), "rate": Task("regression")},
        dict(make_splits(size)),
    )


@auto_config
def experiment() -> Experiment:
    """Builds an experiment that predicts noise from noise."""
    return Experiment(
        data=noise(size=40),
        model=Model(
            encoders={
                "image": encoders.ConvEncoder(features=(4, 8)),
                "audio": encoders.RecurrentEncoder(cell=encoders.gru()),
            },
            fusion=fusion.Gated(width=8),
            heads={
                "digit": heads.Classification(
                    10, loss=functools.partial(losses.cross_entropy, label_smoothing=0.1)
                ),
                "rate": heads.Regression(scale=2.0),
            },
        ),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
        balancer=balance.pcgrad(),
        augment={"image": data.augment.shift_and_crop(2)},
        modality_dropout={"audio": 0.1},
        batch_size=8,
    )
