"""Case 3: late fusion of two LeNets, as in MultiBench for AV-MNIST.

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
from versus.case import Case, MmjaxSide, RunSteps, make_random_batches, make_side

INPUTS = {"audio": (112, 112, 1), "image": (28, 28, 1)}
BLOCKS = {"audio": 6, "image": 4}
BATCH_SIZE = 40


def make_lenet(blocks: int) -> ConvEncoder:
    """Makes blocks of convolution, group norm, 2x2 max pooling and ReLU; filters double from 6.

    Args:
      blocks: number of blocks; the first has 5x5 filters, the others 3x3.
    """
    kernels = (5, *[3] * (blocks - 1))
    return ConvEncoder(tuple(6 * 2**i for i in range(blocks)), kernel=kernels, norm=True)


def make_model() -> Model:
    """Builds both LeNets, the concatenation of their vectors, and one softmax of 10."""
    return Model(
        encoders={m: make_lenet(blocks) for m, blocks in BLOCKS.items()},
        fusion=Concat(),
        heads={"digit": Classification(10)},
    )


def make_mmjax_side() -> MmjaxSide:
    """Returns mmjax's side."""
    return make_side(
        make_model(), optax.adam(1e-3), make_random_batches(INPUTS, ("digit",), BATCH_SIZE)
    )


def make_torch_run(batches: Sequence[Batch]) -> RunSteps:
    """Returns PyTorch's side."""
    import torch

    from versus import torch_models, torch_steps

    net = torch_models.LateFusion(BLOCKS)
    step = torch_steps.TrainStep(net, torch.optim.Adam(net.parameters(), lr=1e-3))
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases() -> Iterator[Case]:
    """Yields one case."""
    yield Case(
        3, f"AV-MNIST late fusion, batch {BATCH_SIZE}", make_mmjax_side, make_torch_run, memory=True
    )
