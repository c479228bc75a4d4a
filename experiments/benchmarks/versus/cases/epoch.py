"""Case 6: a whole epoch of MultiMNIST with its input pipeline, LeNet, batch 256."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from mmjax.balance import equal
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.experiment import Experiment
from mmjax.train.programs import Programs
from mmjax.train.schedule import Schedule
from mmjax.types import Batch
from versus.cases.lenet import BATCH_SIZE
from versus.compiled import choose_devices

EXAMPLES = 50_000
TASKS = ("left", "right")


def load_data() -> Dataset:
    """Loads MultiMNIST if it was prepared, else makes noise of the same shapes."""
    from tensorflow_datasets.core import constants

    if (Path(constants.DATA_DIR).expanduser() / "multi_mnist").exists():
        from mmjax.data import multi_mnist

        return multi_mnist()
    draw = np.random.default_rng(0)
    everywhere = np.ones(EXAMPLES, bool)
    arrays = Arrays(
        Batch(
            inputs={"image": draw.integers(0, 256, (EXAMPLES, 28, 28, 1), np.uint8)},
            present={"image": everywhere},
            lengths={},
            targets={t: draw.integers(0, 10, EXAMPLES).astype(np.int32) for t in TASKS},
            labeled=dict.fromkeys(TASKS, everywhere),
        )
    )
    return Dataset(
        "noise",
        {"image": Modality((28, 28, 1))},
        {task: Task("classification", tuple("0123456789")) for task in TASKS},
        dict.fromkeys(("train", "validation", "test"), arrays),
    )


def make_mmjax_epoch(dataset: Dataset, epochs: int) -> Callable[[], None]:
    """Returns a function that trains an epoch with the programs and the schedule of `fit`."""
    from mmjax.encoders import ConvEncoder
    from mmjax.fusion import Concat
    from mmjax.heads import Classification
    from mmjax.model import Model

    experiment = Experiment(
        data=dataset,
        model=Model(
            encoders={"image": ConvEncoder((10, 20), kernel=5, width=50, padding="VALID")},
            fusion=Concat(),
            heads={task: Classification(10, hidden=(50,)) for task in TASKS},
        ),
        optimizer=optax.adam(1e-3),
        balancer=equal(),
        batch_size=BATCH_SIZE,
        epochs=epochs,
    )
    programs = Programs(experiment, (0,), choose_devices(BATCH_SIZE))
    state = programs.init()

    def epoch() -> None:
        nonlocal state
        first = state.steps_done
        plan = Schedule(experiment, programs.seeds, programs.splits.size("train"), first)
        ranges = tuple(r for r in plan.ranges if r[1] <= first + plan.epoch_steps)
        dispatches = dataclasses.replace(plan.dispatches, ranges=ranges)
        for split, indices in programs.splits.feed("train").chunks(dispatches):
            train, metrics = programs.train(state.train, split, indices)
            state = state._replace(train=train)
            jax.device_get(metrics)

    return epoch


def make_torch_epoch(dataset: Dataset) -> Callable[[], None]:
    """Returns a function that trains an epoch with a DataLoader on the same arrays in memory."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from versus import torch_models, torch_steps

    source: Any = dataset.splits["train"]
    batch = source.take(np.arange(len(source)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of read-only arrays, which suffice
        image = torch.from_numpy(batch.inputs["image"]).permute(0, 3, 1, 2)
        targets = [torch.from_numpy(batch.targets[t]).long() for t in TASKS]
    examples = TensorDataset(image, *targets)
    loader = DataLoader(
        examples, batch_size=BATCH_SIZE, shuffle=True, drop_last=True, num_workers=0
    )
    net = torch_models.LeNet(TASKS)
    step = torch_steps.TrainStep(net, torch.optim.Adam(net.parameters(), lr=1e-3))

    def epoch() -> None:
        for image, *targets in loader:
            pixels = image.to(torch_steps.DEVICE).float() / 255
            labels = {t: y.to(torch_steps.DEVICE) for t, y in zip(TASKS, targets, strict=True)}
            step(Batch({"image": pixels}, {}, {}, labels, {}))
        torch_steps.wait_for_device()

    return epoch
