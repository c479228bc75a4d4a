"""A study on folds of a table of 60 rows that takes seconds."""

import numpy as np
import optax

from mmjax.config import auto_config
from mmjax.data import Split, from_arrays, split_arrays
from mmjax.data.dataset import Dataset
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.study.study import Study


def make_table() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 60)
    return {
        "x": (rng.normal(size=(60, 3)) + kind[:, None]).astype("f"),
        "y": rng.normal(size=(60, 2)).astype("f"),
        "kind": kind,
    }


@auto_config
def experiment() -> Experiment:
    """Two inputs of which one tells the class."""
    return Experiment(
        data=from_arrays(
            split_arrays(make_table(), Split(stratify="kind")), inputs=["x", "y"], targets=["kind"]
        ),
        model=Model(
            encoders={"x": MLPEncoder(features=(4,)), "y": MLPEncoder(features=(4,))},
            fusion=Concat(),
            heads={"kind": Classification(2)},
        ),
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=12,
        monitor="kind/accuracy",
    )


def make_plain() -> Dataset:
    """Makes a data set without folds."""
    table = make_table()
    return from_arrays({"train": table, "validation": table, "test": table}, ["x", "y"], ["kind"])


def make_own(seed: int, folds: int = 0, fold: int = 0) -> Dataset:
    """Makes a data set with folds of its own."""
    parts = split_arrays(make_table(), Split(folds=folds, fold=fold), seed)
    return from_arrays(parts, ["x", "y"], ["kind"])


STUDY = Study(
    base=experiment,
    axes={"optimizer.learning_rate": ["0.01", "0.03"]},
    seeds=(0, 1),
    vmapped=("optimizer.learning_rate",),
    folds=3,
)
