"""Case 3: late fusion of two LeNets, as MultiBench has it for AV-MNIST.

Source: Liang et al., NeurIPS 2021 (arXiv:2107.07502). Group norm takes the place of batch norm on
both sides, and the convolutions have biases on both.
"""

from collections.abc import Iterator, Sequence

import optax

from mmjax.encoders import ConvEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.types import Batch
from versus.case import Case, Ours, Run, complete, random_batches

INPUTS = {"audio": (112, 112, 1), "image": (28, 28, 1)}
BLOCKS = {"audio": 6, "image": 4}
SIZE = 40


def lenet(blocks: int) -> ConvEncoder:
    """For each block: convolution, group norm, 2x2 max pooling, ReLU; filters double from 6.

    Args:
      blocks: how many; the first has 5x5 filters, the others 3x3.
    """
    kernels = (5, *[3] * (blocks - 1))
    return ConvEncoder(tuple(6 * 2**i for i in range(blocks)), kernel=kernels, norm=True)


def model() -> Model:
    """Both LeNets, their vectors side by side, one softmax of 10."""
    return Model(
        encoders={m: lenet(blocks) for m, blocks in BLOCKS.items()},
        fusion=Concat(),
        heads={"digit": Classification(10)},
    )


def ours() -> Ours:
    """Mmjax's side."""
    return complete(model(), optax.adam(1e-3), random_batches(INPUTS, ("digit",), SIZE))


def plain(batches: Sequence[Batch]) -> Run:
    """PyTorch's side."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.LateFusion(BLOCKS)
    step = torch_steps.Step(net, torch.optim.Adam(net.parameters(), lr=1e-3))
    return torch_steps.trained(step, torch_steps.to_tensors(batches))


def cases() -> Iterator[Case]:
    """One batch size."""
    yield Case(3, f"AV-MNIST late fusion, batch {SIZE}", ours, plain, memory=True)
