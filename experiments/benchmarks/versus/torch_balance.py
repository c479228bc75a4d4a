"""Gradient methods in plain PyTorch: a backward pass a task, the Gramian, weights, one product.

The weights are computed with NumPy on the host, where the tiny arrays of a Gramian are fastest.
What costs is the backward passes; methods that are not written out here get equal weights after
them, so that their time is a lower bound of what the method takes in PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from mmjax.types import Batch
from versus.torch_steps import DEVICE, complete_losses

Weights = Callable[[np.ndarray], np.ndarray]


class BalancedStep:
    """One step of training; the heads keep their own task's gradient, as in mmjax.

    Args:
      net: a network with `heads` of one task each.
      optimizer: the optimizer of its parameters.
      weights: Gramian [t t] -> weights [t].
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, weights: Weights) -> None:
        self.net, self.optimizer, self.weights = net.to(DEVICE).train(), optimizer, weights
        own = {id(p) for p in net.heads.parameters()}
        self.shared = [p for p in net.parameters() if id(p) not in own]
        self.own = [list(head.parameters()) for head in net.heads.values()]

    def __call__(self, batch: Batch) -> None:
        """Updates the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = complete_losses(self.net(batch), batch)
        rows = []
        for i, (loss, own) in enumerate(zip(losses, self.own, strict=True)):
            keep = i + 1 < len(losses)
            found = torch.autograd.grad(loss, [*self.shared, *own], retain_graph=keep)
            rows.append(torch.cat([g.flatten() for g in found[: len(self.shared)]]))
            for p, g in zip(own, found[len(self.shared) :], strict=True):
                p.grad = g
        jacobian = torch.stack(rows)
        weights = self.weights((jacobian @ jacobian.T).cpu().numpy())
        gradient = torch.from_numpy(weights.astype(np.float32)).to(DEVICE) @ jacobian
        sizes = [p.numel() for p in self.shared]
        for p, g in zip(self.shared, gradient.split(sizes), strict=True):
            p.grad = g.view_as(p)
        self.optimizer.step()


def uniform(gram: np.ndarray) -> np.ndarray:
    """Equal weights: what stands in for methods that are not written out."""
    return np.ones(len(gram))


def pcgrad(gram: np.ndarray) -> np.ndarray:
    """Each gradient, projected off those that it conflicts with in random order; their sum.

    Source: Yu et al., NeurIPS 2020 (arXiv:2001.06782), on coefficients of the gradients.
    """
    tasks = len(gram)
    coefficients = np.eye(tasks)
    for row in coefficients:
        start = row.argmax()
        for j in np.random.permutation(tasks):
            product = row @ gram[j]
            if j != start and product < 0:
                row[j] -= product / max(gram[j, j], 1e-12)
    return coefficients.sum(axis=0)


def mgda(gram: np.ndarray, steps: int = 250) -> np.ndarray:
    """The convex combination of least norm: in closed form for two, else by Frank-Wolfe.

    Source: Sener and Koltun, NeurIPS 2018 (arXiv:1810.04650).
    """
    weights = np.full(len(gram), 1 / len(gram))
    if len(gram) == 2:
        distance = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
        first = np.clip((gram[1, 1] - gram[0, 1]) / max(distance, 1e-12), 0, 1)
        return np.array([first, 1 - first])
    for _ in range(steps):
        seen = gram @ weights
        best = seen.argmin()
        now, along = weights @ seen, seen[best]
        if now - along < 1e-6 * max(now, 1e-12):
            break
        step = np.clip((now - along) / max(now + gram[best, best] - 2 * along, 1e-12), 0, 1)
        weights = (1 - step) * weights
        weights[best] += step
    return weights


def cagrad(gram: np.ndarray, c: float = 0.5, steps: int = 20) -> np.ndarray:
    """The mean gradient, turned towards the worst task within a ball of c times its norm.

    Source: Liu et al., NeurIPS 2021 (arXiv:2110.14048); the inner problem by steps on a softmax,
    as in the authors' fast version.
    """
    tasks = len(gram)
    scale = np.sqrt(max(np.trace(gram) / tasks, 1e-12))
    unit = gram / scale**2
    mean, radius = unit.mean(axis=1), c * np.sqrt(max(unit.mean(), 1e-12))
    logits, velocity = np.zeros(tasks), np.zeros(tasks)
    for _ in range(steps):
        w = softmax(logits)
        seen = unit @ w
        slope = mean + radius * seen / np.sqrt(max(w @ seen, 1e-8))
        velocity = 0.5 * velocity + w * (slope - w @ slope)
        logits = logits - 25.0 * velocity
    w = softmax(logits)
    return 1 / tasks + w * radius / np.sqrt(max(w @ unit @ w, 1e-8))


def softmax(x: np.ndarray) -> np.ndarray:
    """The softmax of a vector."""
    e = np.exp(x - x.max())
    return e / e.sum()


WEIGHTS: dict[str, Weights] = {"pcgrad": pcgrad, "mgda": mgda, "cagrad": cagrad}
