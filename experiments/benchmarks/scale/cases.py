"""What is compiled: the main job, and two towers of published sizes with four tasks."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from versus.cases.polyglot import load_main_experiment

from mmjax.balance import Balancer, equal, pcgrad
from mmjax.data.dataset import Dataset
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.pretrained.backbones import BERT, ViT
from mmjax.types import Batch

TASKS = ("first", "second", "third", "fourth")
TOKENS = 128  # per text


class PodCase(NamedTuple):
    """One training to compile.

    Attributes:
      name: its unique name.
      make: makes the experiment, whose batch size is that of one chip, and one example.
      slices: names of the slices that it is compiled for.
      seeds: number of seeds, each on its own chips.
    """

    name: str
    make: Callable[[], tuple[Experiment, Batch]]
    slices: tuple[str, ...]
    seeds: int = 1


def make_main_job() -> tuple[Experiment, Batch]:
    """Returns the main job; its data are prepared if they are missing."""
    e = load_main_experiment()
    return e, e.data.splits["train"].take(np.arange(1))


def make_towers(
    balancer: Balancer, *, remat: bool = True, sharding: str = "replicated"
) -> tuple[Experiment, Batch]:
    """Returns ViT-B beside BERT-base with four tasks, in bfloat16, 32 examples per chip."""
    experiment = Experiment(
        data=Dataset("shapes", {}, {}, {}),
        model=Model(
            encoders={"image": ViT(remat=remat), "text": BERT(remat=remat)},
            fusion=Concat(),
            heads={task: Classification(10) for task in TASKS},
        ),
        optimizer=optax.adamw(1e-4),
        balancer=balancer,
        batch_size=32,
        compute_dtype="bfloat16",
        sharding=sharding,
    )
    yes = np.ones(1, bool)
    example = Batch(
        inputs={
            "image": np.zeros((1, 224, 224, 3), np.uint8),
            "text": np.zeros((1, TOKENS), np.int32),
        },
        present={"image": yes, "text": yes},
        lengths={"text": np.full(1, TOKENS, np.int32)},
        targets=dict.fromkeys(TASKS, np.zeros(1, np.int32)),
        labeled=dict.fromkeys(TASKS, yes),
    )
    return experiment, example


_ONE = ("v5e:1x1", "h100:1x1")
_EIGHT = ("v5e:2x4", "h100:1x8")
_MOST = ("v5e:16x16", "h100:32x8")
_SEVERAL_CHIPS = (*_EIGHT, *_MOST, "v5p:2x2x2", "v6e:2x4")
_EVERY_SIZE = (*_ONE, *_SEVERAL_CHIPS, "v5e:4x4", "v5e:8x8")

CASES = (
    PodCase("main job, equal", make_main_job, _EVERY_SIZE),
    PodCase("towers, equal", functools.partial(make_towers, equal(), remat=False), _EIGHT),
    PodCase(
        "towers, equal, remat",
        functools.partial(make_towers, equal()),
        (*_ONE, *_SEVERAL_CHIPS),
    ),
    PodCase("towers, pcgrad, remat", functools.partial(make_towers, pcgrad()), _SEVERAL_CHIPS),
    PodCase(
        "towers, equal, remat, fsdp",
        functools.partial(make_towers, equal(), sharding="fsdp"),
        _SEVERAL_CHIPS,
    ),
    PodCase(
        "towers, pcgrad, remat, fsdp",
        functools.partial(make_towers, pcgrad(), sharding="fsdp"),
        _SEVERAL_CHIPS,
    ),
    PodCase(
        "towers, equal, remat, fsdp, 2 seeds",
        functools.partial(make_towers, equal(), sharding="fsdp"),
        (*_EIGHT, *_MOST),
        seeds=2,
    ),
    PodCase(
        "towers, pcgrad, remat, fsdp, 2 seeds",
        functools.partial(make_towers, pcgrad(), sharding="fsdp"),
        (*_EIGHT, *_MOST),
        seeds=2,
    ),
)
