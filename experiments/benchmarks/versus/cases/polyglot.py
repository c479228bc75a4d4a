"""Case 4: the main job, `experiments/polyglot_digits.py`, with its own data."""

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mmjax.data.sampling.batch_order import make_train_indices
from mmjax.experiment import Experiment
from mmjax.types import Batch
from versus.case import BATCH_COUNT, Case, MmjaxSide, RunSteps

EXPERIMENTS = Path(__file__).parents[3]


def load_experiment_file(name: str) -> ModuleType:
    """Imports the module of an experiment."""
    path = EXPERIMENTS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def load_main_experiment() -> Experiment:
    """Builds the experiment; its data are prepared if they are missing."""
    return load_experiment_file("polyglot_digits").experiment()


def make_mmjax_side() -> MmjaxSide:
    """Returns mmjax's side: the first batches of training."""
    e = load_main_experiment()
    source = e.data.splits["train"]
    indices = make_train_indices((0,), len(source), e.batch_size, 0, BATCH_COUNT)[0]
    return MmjaxSide(e.model, e.optimizer, e.balancer, [source.take(i) for i in indices])


def make_torch_run(batches: Sequence[Batch]) -> RunSteps:
    """Returns PyTorch's side: the same losses, clipping, schedule and decay."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.Polyglot()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=144 * 12)
    step = torch_steps.TrainStep(
        net, optimizer, schedule=schedule, clip=1.0, standard=(220.0, 58.0)
    )
    # Packing needs the lengths on the host, where a loader would have them anyway.
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases() -> Iterator[Case]:
    """Yields one case."""
    yield Case(4, "polyglot_digits, batch 64", make_mmjax_side, make_torch_run)
