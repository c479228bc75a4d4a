"""Case 5: the cross-modal transformer on two modalities of 50 tokens."""

from collections.abc import Iterator, Sequence

import optax

from mmjax.encoders import Features
from mmjax.fusion import CrossModal
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.types import Batch
from versus.case import Case, Ours, Run, complete, random_batches

INPUTS = {"first": (50, 64), "second": (50, 64)}
SIZE = 32


def model() -> Model:
    """Width 64, two layers in each of the four stacks, four heads; one softmax of 10."""
    return Model(
        encoders={m: Features() for m in INPUTS},
        fusion=CrossModal(width=64, layers=2, heads=4),
        heads={"class": Classification(10)},
    )


def ours() -> Ours:
    """Mmjax's side."""
    return complete(model(), optax.adam(1e-3), random_batches(INPUTS, ("class",), SIZE))


def plain(batches: Sequence[Batch]) -> Run:
    """PyTorch's side."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.CrossModal(tuple(INPUTS), width=64, layers=2, heads=4)
    step = torch_steps.Step(net, torch.optim.Adam(net.parameters(), lr=1e-3))
    return torch_steps.trained(step, torch_steps.to_tensors(batches))


def cases() -> Iterator[Case]:
    """One."""
    yield Case(5, f"cross-modal transformer, batch {SIZE}", ours, plain)
