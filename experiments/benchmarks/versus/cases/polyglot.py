"""Case 4: the main job, `experiments/polyglot_digits.py`, with its own data."""

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mmjax.data.batch_order import train_indices
from mmjax.experiment import Experiment
from mmjax.types import Batch
from versus.case import BATCHES, Case, Ours, Run

EXPERIMENTS = Path(__file__).parents[3]


def experiment_file(name: str) -> ModuleType:
    """An experiment's module."""
    path = EXPERIMENTS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def experiment() -> Experiment:
    """The experiment; its data are prepared if they are not there."""
    return experiment_file("polyglot_digits").experiment()


def ours() -> Ours:
    """Mmjax's side: the first batches of training."""
    e = experiment()
    source = e.data.splits["train"]
    indices = train_indices((0,), len(source), e.batch_size, 0, BATCHES)[0]
    return Ours(e.model, e.optimizer, e.balancer, [source.take(i) for i in indices])


def plain(batches: Sequence[Batch]) -> Run:
    """PyTorch's side: the same losses, clipping, schedule and decay."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.Polyglot()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=144 * 12)
    step = torch_steps.Step(net, optimizer, schedule=schedule, clip=1.0, standard=(220.0, 58.0))
    # Packing wants the lengths on the host, where a loader would have them anyway.
    return torch_steps.trained(step, torch_steps.to_tensors(batches))


def cases() -> Iterator[Case]:
    """One."""
    yield Case(4, "polyglot_digits, batch 64", ours, plain)
