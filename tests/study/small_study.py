"""A study that takes seconds: two modalities, two tasks, made of random numbers.

The task "kind" is in the vector, "size" in the sequence and in the vector.
"""

import numpy as np
import optax

from mmjax.balance import equal
from mmjax.config import auto_config
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import MLPEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.study.study import Study
from mmjax.types import Batch


def batch(examples: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, examples)
    return Batch(
        inputs={
            "left": (rng.normal(size=(examples, 5)) + 2 * np.eye(5)[kind]).astype("f"),
            "right": (rng.normal(size=(examples, 3)) + kind[:, None]).astype("f"),
        },
        present={m: np.ones(examples, bool) for m in ("left", "right")},
        lengths={},
        targets={
            "kind": kind.astype(np.int32),
            "size": (kind + 0.1 * rng.normal(size=examples)).astype("f"),
        },
        labeled={"kind": np.ones(examples, bool), "size": rng.random(examples) < 0.7},
    )


def made() -> Dataset:
    sizes = {"train": 64, "validation": 32, "test": 32}
    return Dataset(
        "made",
        {"left": Modality((5,)), "right": Modality((3,))},
        {"kind": Task("classification", tuple("abcd")), "size": Task("regression")},
        {name: Arrays(batch(n, seed)) for seed, (name, n) in enumerate(sizes.items())},
    )


@auto_config
def experiment() -> Experiment:
    """Two small towers, one trunk, two heads."""
    return Experiment(
        data=made(),
        model=Model(
            encoders={"left": MLPEncoder(features=(6,)), "right": MLPEncoder(features=(6,))},
            fusion=Concat(),
            sharing=HardSharing(features=(8,), dropout=0.2),
            heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
        ),
        balancer=equal(),
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=8,
        eval_batch_size=32,
        steps_per_dispatch=4,
        monitor="kind/accuracy",
    )


@auto_config
def unmonitored() -> Experiment:
    """The same, but for what is monitored: the default, which is the loss."""
    return Experiment(
        data=made(),
        model=Model(
            encoders={"left": MLPEncoder(features=(6,)), "right": MLPEncoder(features=(6,))},
            fusion=Concat(),
            sharing=HardSharing(features=(8,)),
            heads={"kind": Classification(4), "size": Regression(mean=1.5, scale=1.1)},
        ),
        balancer=equal(),
        optimizer=optax.adam(1e-2),
        epochs=2,
        batch_size=8,
        eval_batch_size=32,
        steps_per_dispatch=4,
    )


STUDY = Study(
    base=experiment,
    axes={
        "fusion": {
            "concat": {"model.fusion": "Concat()"},
            "gated": {"model.fusion": "Gated(width=6)"},
        },
        "optimizer.learning_rate": ["0.01", "0.03"],
    },
    seeds=(0, 1, 2),
    single_task=True,
    single_modality=True,
    vmapped=("optimizer.learning_rate",),
)

TWO_PROGRAMS = Study(base=experiment, axes={"fusion": STUDY.axes["fusion"]}, seeds=(0,))
