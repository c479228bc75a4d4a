"""Case 9: ViT-S beside MiniLM, frozen under a trained head, and trained as a whole."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import optax

from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.model import Model
from mmjax.pretrained.backbones import ViT, minilm
from mmjax.types import Batch
from versus.case import Case, MmjaxSide, RunSteps, make_random_batches

BATCH_SIZE = 32
PIXELS, TOKENS, VOCABULARY = 96, 32, 30522
WIDTH, HIDDEN = 384, 1536
TASKS = ("first", "second")
TRAINED_IF_FROZEN = ("heads_*",)


def make_model() -> Model:
    """Builds ViT-S of 16x16 patches and MiniLM of six layers, and a softmax of 10 per task."""
    vit = ViT(width=WIDTH, layers=12, heads=6, hidden=HIDDEN, patch=16, image=PIXELS)
    return Model(
        encoders={"image": vit, "text": minilm()},
        fusion=Concat(),
        heads={task: Classification(10) for task in TASKS},
    )


def make_batches() -> list[Batch]:
    """Makes images of noise beside random tokens; two batches, since a step is long."""
    draw = np.random.default_rng(1)
    inputs = {"image": (PIXELS, PIXELS, 3)}
    batches = []
    for batch in make_random_batches(inputs, TASKS, BATCH_SIZE, count=2):
        tokens = draw.integers(0, VOCABULARY, (BATCH_SIZE, TOKENS)).astype(np.int32)
        batches.append(
            batch._replace(
                inputs=batch.inputs | {"text": tokens},
                present=batch.present | {"text": np.ones(BATCH_SIZE, bool)},
                lengths={"text": np.full(BATCH_SIZE, TOKENS, np.int32)},
            )
        )
    return batches


def make_mmjax_side(frozen: bool) -> MmjaxSide:
    """Returns mmjax's side."""
    trainable = TRAINED_IF_FROZEN if frozen else None
    return MmjaxSide(make_model(), optax.adam(1e-4), batches=make_batches(), trainable=trainable)


def make_torch_run(batches: Sequence[Batch], frozen: bool) -> RunSteps:
    """Returns PyTorch's side: the modules of transformers, randomly initialized."""
    import torch

    from versus import torch_steps, torch_towers

    net = torch_towers.TwoTowers(TASKS, PIXELS, WIDTH, HIDDEN, frozen=frozen)
    trained = [p for p in net.parameters() if p.requires_grad]
    step = torch_steps.TrainStep(net, torch.optim.Adam(trained, lr=1e-4))
    return torch_steps.make_run(step, torch_steps.convert_to_tensors(batches))


def list_cases() -> Iterator[Case]:
    """Yields one case per way of training."""
    for frozen in (True, False):
        yield Case(
            9,
            f"ViT-S + MiniLM, {'frozen' if frozen else 'full'}, batch {BATCH_SIZE}",
            functools.partial(make_mmjax_side, frozen),
            functools.partial(make_torch_run, frozen=frozen),
        )
