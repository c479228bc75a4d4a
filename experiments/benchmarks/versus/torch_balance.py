"""Gradient methods in plain PyTorch: one backward pass per task, the Gramian, weights, a product.

The weights are computed with NumPy on the host, where the tiny arrays of a Gramian are fastest.
The backward passes dominate the cost; methods that are not implemented here get equal weights after
them, so that their time is a lower bound of the method's time in PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from mmjax.types import Batch
from versus.torch_steps import DEVICE, compute_complete_losses

Weights = Callable[[np.ndarray], np.ndarray]


class BalancedStep:
    """One training step; each head gets the gradient of its own task, as in mmjax.

    Args:
      net: a network with `heads` of one task each.
      optimizer: the optimizer of its parameters.
      weights: Gramian [t t] -> weights [t].
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, weights: Weights) -> None:
        self.net, self.optimizer, self.weights = net.to(DEVICE).train(), optimizer, weights
        head_ids = {id(p) for p in net.heads.parameters()}
        self.shared = [p for p in net.parameters() if id(p) not in head_ids]
        self.head_params = [list(head.parameters()) for head in net.heads.values()]

    def __call__(self, batch: Batch) -> None:
        """Updates the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = compute_complete_losses(self.net(batch), batch)
        rows = []
        for i, (loss, params) in enumerate(zip(losses, self.head_params, strict=True)):
            retain = i + 1 < len(losses)  # the last backward pass frees the graph
            grads = torch.autograd.grad(loss, [*self.shared, *params], retain_graph=retain)
            rows.append(torch.cat([g.flatten() for g in grads[: len(self.shared)]]))
            for p, g in zip(params, grads[len(self.shared) :], strict=True):
                p.grad = g
        jacobian = torch.stack(rows)
        weights = self.weights((jacobian @ jacobian.T).cpu().numpy())
        gradient = torch.from_numpy(weights.astype(np.float32)).to(DEVICE) @ jacobian
        sizes = [p.numel() for p in self.shared]
        for p, g in zip(self.shared, gradient.split(sizes), strict=True):
            p.grad = g.view_as(p)
        self.optimizer.step()


def uniform(gram: np.ndarray) -> np.ndarray:
    """Returns equal weights, for methods that are not implemented here."""
    return np.ones(len(gram))


def pcgrad(gram: np.ndarray) -> np.ndarray:
    """Projects each gradient off those that it conflicts with, in random order, and sums them.

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
    """Returns the convex combination of least norm: closed form for two tasks, else Frank-Wolfe.

    Source: Sener and Koltun, NeurIPS 2018 (arXiv:1810.04650).
    """
    weights = np.full(len(gram), 1 / len(gram))
    if len(gram) == 2:
        distance = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
        first = np.clip((gram[1, 1] - gram[0, 1]) / max(distance, 1e-12), 0, 1)
        return np.array([first, 1 - first])
    for _ in range(steps):
        products = gram @ weights  # of each gradient with the present combination
        best = products.argmin()
        squared_norm, along = weights @ products, products[best]
        if squared_norm - along < 1e-6 * max(squared_norm, 1e-12):  # the duality gap
            break
        distance = squared_norm + gram[best, best] - 2 * along
        step = np.clip((squared_norm - along) / max(distance, 1e-12), 0, 1)
        weights = (1 - step) * weights
        weights[best] += step
    return weights


def cagrad(gram: np.ndarray, c: float = 0.5, steps: int = 20) -> np.ndarray:
    """Turns the mean gradient towards the worst task, within a ball of c times its norm.

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
        products = unit @ w
        slope = mean + radius * products / np.sqrt(max(w @ products, 1e-8))
        velocity = 0.5 * velocity + w * (slope - w @ slope)
        logits = logits - 25.0 * velocity
    w = softmax(logits)
    return 1 / tasks + w * radius / np.sqrt(max(w @ unit @ w, 1e-8))


def softmax(x: np.ndarray) -> np.ndarray:
    """Computes the softmax of a vector."""
    e = np.exp(x - x.max())
    return e / e.sum()


WEIGHTS: dict[str, Weights] = {"pcgrad": pcgrad, "mgda": mgda, "cagrad": cagrad}
