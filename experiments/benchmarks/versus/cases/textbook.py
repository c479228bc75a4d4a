"""Case 1: the textbook model, a CNN on images beside two LSTM layers on sequences, two tasks."""

from collections.abc import Iterator, Sequence

import optax

from mmjax.encoders import ConvEncoder, RecurrentEncoder, lstm
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.sharing import HardSharing
from mmjax.types import Batch
from versus.case import Case, MmjaxSide, RunSteps, make_random_batches, make_side

INPUTS = {"image": (28, 28, 1), "speech": (20, 20)}
TASKS = ("digit", "parity")


def make_model() -> Model:
    """Builds conv 32 and 64, two LSTM layers of 64, dense 128, two softmaxes of 10."""
    return Model(
        encoders={
            "image": ConvEncoder(features=(32, 64)),
            "speech": RecurrentEncoder(cell=lstm(), width=64, layers=2),
        },
        fusion=Concat(),
        sharing=HardSharing(features=(128,)),
        heads={task: Classification(10) for task in TASKS},
    )


def make_mmjax_side(size: int) -> MmjaxSide:
    """Returns mmjax's side."""
    return make_side(make_model(), optax.adam(1e-3), make_random_batches(INPUTS, TASKS, size))


def make_torch_run(batches: Sequence[Batch]) -> RunSteps:
    """Returns PyTorch's side."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.Textbook()
    step = torch_steps.TrainStep(net, torch.optim.Adam(net.parameters(), lr=1e-3))
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases() -> Iterator[Case]:
    """Yields batches of 32 and of 128."""
    for size in (32, 128):
        yield Case(
            1,
            f"textbook, batch {size}",
            lambda size=size: make_mmjax_side(size),
            make_torch_run,
            memory=True,
        )
