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
from versus.case import Case, Ours, Run, complete, random_batches

SIZE = 256
TASKS = (2, 8, 40)
METHODS = (
    *("equal", "pcgrad", "mgda", "cagrad"),
    *("gradvac", "imtl_g", "nash", "fairgrad", "aligned", "upgrad", "dualproj", "config", "krum"),
    *("gradnorm", "graddrop", "db_mtl", "moco", "modo", "sdmgrad", "excess_mtl", "trimmed_mean"),
)
WRITTEN_OUT = ("equal", "pcgrad", "mgda", "cagrad")  # those that PyTorch's side does in full


def names(tasks: int) -> list[str]:
    """The tasks' names, in order."""
    return [f"task{i:02}" for i in range(tasks)]


def model(tasks: int) -> Model:
    """Conv 10 and 20 of 5x5 with pooling, dense 50, and for each task 50 -> 50 -> 10."""
    return Model(
        encoders={"image": ConvEncoder((10, 20), kernel=5, width=50, padding="VALID")},
        fusion=Concat(),
        heads={name: Classification(10, hidden=(50,)) for name in names(tasks)},
    )


def balancer(method: str) -> Any:
    """A method with its defaults."""
    return getattr(balance, method)()


def ours(method: str, tasks: int) -> Ours:
    """Mmjax's side."""
    batches = random_batches({"image": (28, 28, 1)}, names(tasks), SIZE)
    return complete(model(tasks), optax.adam(1e-3), batches, balancer(method))


def plain(batches: Sequence[Batch], method: str, tasks: int) -> Run:
    """PyTorch's side."""
    import torch

    from versus import torch_balance, torch_models, torch_steps

    net = torch_models.LeNet(names(tasks))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    if method == "equal":
        step: Any = torch_steps.Step(net, optimizer)
    else:
        weights = torch_balance.WEIGHTS.get(method, torch_balance.uniform)
        step = torch_balance.BalancedStep(net, optimizer, weights)
    return torch_steps.trained(step, torch_steps.to_tensors(batches))


def cases(methods: Sequence[str], tasks: Sequence[int]) -> Iterator[Case]:
    """Every method for every number of tasks."""
    for count in tasks:
        for method in methods:
            yield Case(
                2,
                f"LeNet, {count} tasks, {method}",
                lambda method=method, count=count: ours(method, count),
                lambda b, method=method, count=count: plain(b, method, count),
                memory=method in WRITTEN_OUT,
                bound=method not in WRITTEN_OUT,
            )
