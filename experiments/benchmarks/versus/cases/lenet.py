"""Case 2: LeNet for 2, 8 and 40 tasks, with equal weights and with every gradient method."""

from collections.abc import Iterator, Sequence
from typing import Any

import optax

from mmjax import balance
from mmjax.encoders import ConvEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.types import Batch
from versus.case import Case, MmjaxSide, RunSteps, make_random_batches, make_side

BATCH_SIZE = 256
TASKS = (2, 8, 40)
METHODS = (
    *("equal", "pcgrad", "mgda", "cagrad"),
    *(
        "gradvac",
        "imtl_g",
        "nash",
        "fairgrad",
        "aligned",
        "upgrad",
        "dualproj",
        "conflict_free",
        "krum",
    ),
    *("gradnorm", "graddrop", "db_mtl", "moco", "modo", "sdmgrad", "excess_mtl", "trimmed_mean"),
)
COMPLETE_IN_TORCH = (
    "equal",
    "pcgrad",
    "mgda",
    "cagrad",
)  # the methods that PyTorch's side implements completely


def make_task_names(tasks: int) -> list[str]:
    """Returns the names of the tasks, in order."""
    return [f"task{i:02}" for i in range(tasks)]


def make_model(tasks: int) -> Model:
    """Builds conv 10 and 20 of 5x5 with pooling, dense 50, and 50 -> 50 -> 10 per task."""
    return Model(
        encoders={"image": ConvEncoder((10, 20), kernel=5, width=50, padding="VALID")},
        fusion=Concat(),
        heads={name: Classification(10, hidden=(50,)) for name in make_task_names(tasks)},
    )


def make_balancer(method: str) -> Any:
    """Returns a method with its defaults."""
    return getattr(balance, method)()


def make_mmjax_side(method: str, tasks: int) -> MmjaxSide:
    """Returns mmjax's side."""
    batches = make_random_batches({"image": (28, 28, 1)}, make_task_names(tasks), BATCH_SIZE)
    return make_side(make_model(tasks), optax.adam(1e-3), batches, make_balancer(method))


def make_torch_run(batches: Sequence[Batch], method: str, tasks: int) -> RunSteps:
    """Returns PyTorch's side."""
    import torch

    from versus import torch_balance, torch_models, torch_steps

    net = torch_models.LeNet(make_task_names(tasks))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    if method == "equal":
        step: Any = torch_steps.TrainStep(net, optimizer)
    else:
        weights = torch_balance.WEIGHTS.get(method, torch_balance.uniform)
        step = torch_balance.BalancedStep(net, optimizer, weights)
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases(methods: Sequence[str], tasks: Sequence[int]) -> Iterator[Case]:
    """Yields every method for every number of tasks."""
    for count in tasks:
        for method in methods:
            yield Case(
                2,
                f"LeNet, {count} tasks, {method}",
                lambda method=method, count=count: make_mmjax_side(method, count),
                lambda b, method=method, count=count: make_torch_run(b, method, count),
                memory=method in COMPLETE_IN_TORCH,
                bound=method not in COMPLETE_IN_TORCH,
            )
