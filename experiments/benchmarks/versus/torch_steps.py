"""PyTorch's training step, and the conversion of the batches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, its usual name
from torch import Tensor, nn

from mmjax.types import Batch
from versus.case import RunSteps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class TrainStep:
    """One training step on the sum of the tasks' mean losses.

    Args:
      net: Batch -> {task: prediction}.
      optimizer: the optimizer of its parameters.
      schedule: schedule of the learning rate, if any.
      clip: largest norm of the gradient, if any.
      standard: (mean, scale) of the target of a regression. If given, labels may be missing.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        schedule: Any = None,
        clip: float | None = None,
        standard: tuple[float, float] | None = None,
    ) -> None:
        self.net, self.optimizer = net.to(DEVICE).train(), optimizer
        self.schedule, self.clip, self.standard = schedule, clip, standard

    def __call__(self, batch: Batch) -> None:
        """Updates the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        predictions = self.net(batch)
        if self.standard is None:
            losses = compute_complete_losses(predictions, batch)
        else:
            losses = compute_masked_losses(predictions, batch, *self.standard)
        sum(losses).backward()
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()


def compute_complete_losses(predictions: dict[str, Tensor], batch: Batch) -> list[Tensor]:
    """Returns every task's mean cross entropy; no label is missing."""
    return [F.cross_entropy(p, batch.targets[task]) for task, p in predictions.items()]


def compute_masked_losses(
    predictions: dict[str, Tensor], batch: Batch, mean: float, scale: float
) -> list[Tensor]:
    """Returns every task's mean loss over its labeled examples; float targets mean regression."""
    losses = []
    for task, prediction in predictions.items():
        target, labeled = batch.targets[task], batch.labeled[task]
        if target.is_floating_point():
            error = prediction - (target - mean) / scale
            loss = error.masked_fill(~labeled, 0).square()
        else:
            safe = target.masked_fill(~labeled, 0)
            loss = F.cross_entropy(prediction, safe, reduction="none").masked_fill(~labeled, 0)
        losses.append(loss.sum() / labeled.sum().clamp(min=1))
    return losses


def convert_to_tensors(batches: Sequence[Batch]) -> list[Batch]:
    """Converts batches to tensors on the device: images [b c h w], integer targets int64.

    Lengths stay on the host, where PyTorch needs them. What is missing is zero.
    """

    def convert(batch: Batch) -> Batch:
        inputs = {}
        for m, x in batch.inputs.items():
            present = np.expand_dims(batch.present[m], tuple(range(1, x.ndim)))
            x = torch.from_numpy(np.where(present, x, np.zeros((), x.dtype)))
            inputs[m] = (x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x).to(DEVICE)
        targets = {t: torch.from_numpy(np.asarray(y)) for t, y in batch.targets.items()}
        return Batch(
            inputs=inputs,
            present={m: torch.from_numpy(p).to(DEVICE) for m, p in batch.present.items()},
            lengths={m: torch.from_numpy(np.asarray(n)).long() for m, n in batch.lengths.items()},
            targets={
                t: (y if y.is_floating_point() else y.long()).to(DEVICE) for t, y in targets.items()
            },
            labeled={t: torch.from_numpy(y).to(DEVICE) for t, y in batch.labeled.items()},
        )

    return [convert(batch) for batch in batches]


def make_run(step: Callable[[Batch], None], batches: Sequence[Batch]) -> RunSteps:
    """Returns a function that runs a number of steps, batch after batch, and waits for the last."""

    def run(steps: int) -> None:
        for i in range(steps):
            step(batches[i % len(batches)])
        wait_for_device()

    return run


def wait_for_device() -> None:
    """Waits for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
