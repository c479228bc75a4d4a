"""Regularizer of evidential predictions: the divergence from the uniform Dirichlet."""

import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.auxiliary.branches import check_task_names
from mmjax.heads.evidential import Evidential
from mmjax.types import Batch, Intermediates

_ASYMPTOTIC = 20.0  # from here on the series below is exact to 1e-8


def dirichlet_kl(alpha: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Computes KL(Dir(α) ‖ Dir(1)) in nats, at least 0, for α ≥ 1.

    It is ln Γ(S) - ln Γ(c) - Σ ln Γ(α_k) + Σ (α_k - 1)(ψ(α_k) - ψ(S)) with S = Σ α_k. Its terms
    grow like S ln S and cancel, so they are summed as g(S) - Σ g(α_k) + (c - 1) ψ(S) - ln Γ(c) with
    g(x) = ln Γ(x) - (x - 1) ψ(x) + x, which grows like ½ ln x.

    Source: Sensoy et al., NeurIPS 2018 (arXiv:1806.01768), section 4.

    Example:
      >>> dirichlet_kl(jnp.ones(3)).tolist()
      0.0
      >>> print(f"{dirichlet_kl(jnp.array([2.0, 1.0])):.3f}")  # ln 2 - ½
      0.193
    """
    total, classes = alpha.sum(axis=-1), alpha.shape[-1]
    divergence = (
        _slow_part(total)
        - _slow_part(alpha).sum(axis=-1)
        + (classes - 1) * digamma(total)
        - math.lgamma(classes)
    )
    return jnp.maximum(divergence, 0)


def _slow_part(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Computes ln Γ(x) - (x - 1) ψ(x) + x, for large x by its series."""
    small, large = jnp.minimum(x, _ASYMPTOTIC), jnp.maximum(x, _ASYMPTOTIC)
    exact = gammaln(small) - (small - 1) * digamma(small) + small
    constant = (math.log(2 * math.pi) + 1) / 2
    r = 1 / large
    series = jnp.log(large) / 2 + constant - r / 3 - r**2 / 12 - r**3 / 90 + r**4 / 120
    return jnp.where(x < _ASYMPTOTIC, exact, series)


class DirichletKL(nn.Module):
    """TMC's regularizer: evidence for wrong classes is drawn to none, by a weight that grows.

    λ_t KL(Dir(α̃) ‖ Dir(1)), where α̃ is α with 1 at the target class, of the combined prediction of
    every named task and, under late fusion, of every branch that an example has, summed over them;
    the mean over tasks and labeled examples. λ_t = min(1, t / `annealing_steps`) in step t lets
    evidence grow first. The loss is at least 0. With a sharing that has several backbones every
    backbone counts a step.

    Source: Han et al., ICLR 2021 (arXiv:2102.02051), equations 9 to 11. The paper's t are epochs.

    Attributes:
      tasks: tasks whose heads are `heads.Evidential`.
      annealing_steps: steps until the weight is 1; 0 is at once.

    Example:
      >>> import functools
      >>> from mmjax.types import Tokens
      >>> tokens = {"image": Tokens(jnp.ones((1, 1, 4)), jnp.ones((1, 1), bool))}
      >>> seen = Intermediates(tokens, None, {"digit": None}, {})
      >>> y, yes = {"digit": jnp.array([0])}, {"digit": jnp.ones(1, bool)}
      >>> objective, batch = DirichletKL(("digit",), annealing_steps=0), Batch({}, {}, {}, y, yes)
      >>> call = functools.partial(objective.apply, {}, seen, train=False, gather=lambda x: x)
      >>> total, _ = call({"digit": jnp.log(jnp.array([[5.0, 2.0]]))}, batch=batch)
      >>> print(f"{total:.3f}")  # of Dir(1, 2): ln 2 - ½
      0.193
    """

    tasks: tuple[str, ...]
    annealing_steps: int = 1000

    needs_branches: ClassVar[bool] = True
    needs_head: ClassVar[type] = Evidential

    def __post_init__(self) -> None:
        if self.annealing_steps < 0:
            raise ValueError(
                f"DirichletKL.annealing_steps is {self.annealing_steps}; it must be 0 or more."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's labeled examples with any modality; their number."""
        del gather
        check_task_names(self, seen, self.tasks)
        has_any = jnp.stack([x.mask.any(axis=1) for x in seen.tokens.values()]).any(axis=0)
        totals, counts = [], []
        for t in sorted(self.tasks):
            labeled, target = batch.labeled[t] & has_any, batch.targets[t]
            shares = target if target.ndim > 1 else jax.nn.one_hot(target, predictions[t].shape[1])
            for log_alpha, counted in _list_opinions(seen, t, predictions[t], labeled):
                evidence = jnp.expm1(jnp.minimum(log_alpha, 80)) * (1 - shares)
                divergence = dirichlet_kl(1 + jnp.where(counted[:, None], evidence, 0))
                totals.append(jnp.where(counted, divergence, 0).sum())
            counts.append(labeled.sum())
        total = self.compute_weight(train=train) * jnp.stack(totals).sum()
        return total, jnp.stack(counts).sum().astype(jnp.float32)

    def compute_weight(self, *, train: bool) -> Float[Array, ""]:
        """Returns λ_t, and counts the step while training."""
        if not self.annealing_steps:
            return jnp.ones(())
        steps = self.variable("annealing", "steps", lambda: jnp.zeros((), jnp.int32))
        weight = jnp.minimum(steps.value / self.annealing_steps, 1.0)
        if train and self.is_mutable_collection("annealing"):
            steps.value += 1
        return jnp.asarray(weight, jnp.float32)


def _list_opinions(
    seen: Intermediates, task: str, combined: Array, labeled: Bool[Array, " b"]
) -> list[tuple[Array, Bool[Array, " b"]]]:
    """Returns log α of the combined opinion and of each branch's, and which examples count."""
    opinions = [(combined, labeled)]
    for _, branch in sorted(seen.branches.get(task, {}).items()):
        opinions.append((branch.prediction, labeled & (branch.weight > 0)))
    return opinions
