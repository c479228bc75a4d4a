"""Case 5: the cross-modal transformer on two modalities of 50 tokens."""

from collections.abc import Iterator, Sequence

import optax

from mmjax.encoders import Features
from mmjax.fusion import CrossModal
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.types import Batch
from versus.case import Case, MmjaxSide, RunSteps, make_random_batches, make_side

INPUTS = {"first": (50, 64), "second": (50, 64)}
BATCH_SIZE = 32


def make_model() -> Model:
    """Builds width 64, two layers in each of the four stacks, four heads, one softmax of 10."""
    return Model(
        encoders={m: Features() for m in INPUTS},
        fusion=CrossModal(width=64, layers=2, heads=4),
        heads={"class": Classification(10)},
    )


def make_mmjax_side() -> MmjaxSide:
    """Returns mmjax's side."""
    return make_side(
        make_model(), optax.adam(1e-3), make_random_batches(INPUTS, ("class",), BATCH_SIZE)
    )


def make_torch_run(batches: Sequence[Batch]) -> RunSteps:
    """Returns PyTorch's side."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.CrossModal(tuple(INPUTS), width=64, layers=2, heads=4)
    step = torch_steps.TrainStep(net, torch.optim.Adam(net.parameters(), lr=1e-3))
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases() -> Iterator[Case]:
    """Yields one case."""
    yield Case(5, f"cross-modal transformer, batch {BATCH_SIZE}", make_mmjax_side, make_torch_run)
