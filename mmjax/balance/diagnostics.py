"""Diagnostics of the tasks' gradients: their angles, norms and conflicts."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.spectrum import truncated_eigh

Totals = dict[str, tuple[Array, Array]]


def diagnose_gradients(
    gram: Float[Array, "t t"], tasks: Sequence[str], labeled: Bool[Array, " t"]
) -> Totals:
    """Computes metrics (total, count) of the Gramian of the gradients, over the labeled tasks.

    Returns:
      "gradient_norm/TASK"; "cosine/A,B" for every pair of tasks, 0 if a gradient is zero;
      "conflicts", the share of pairs with a negative cosine; "condition", the ratio of the
      largest to the smallest significant eigenvalue of the Gramian.

    Example:
      >>> gram = jnp.array([[4.0, -1.0], [-1.0, 1.0]])
      >>> metrics = diagnose_gradients(gram, ("a", "b"), jnp.array([True, True]))
      >>> for name in ("gradient_norm/a", "cosine/a,b", "conflicts"):
      ...     total, count = metrics[name]
      ...     print(name, total / count)
      gradient_norm/a 2.0
      cosine/a,b -0.5
      conflicts 1.0
    """
    t = len(tasks)
    cosines, norms, nonzero = unit_gram(gram)
    norms = jnp.where(nonzero, norms, 0)
    pairs = [(i, j) for i in range(t) for j in range(i + 1, t)]
    both = (labeled[:, None] & labeled[None, :]).astype(jnp.float32)
    # Above the diagonal, so that every pair counts once; totals and counts add up over steps.
    conflicts = jnp.triu(both * (cosines < 0), 1).sum(), jnp.triu(both, 1).sum()
    return (
        {f"gradient_norm/{task}": (norms[i], both[i, i]) for i, task in enumerate(tasks)}
        | {f"cosine/{tasks[i]},{tasks[j]}": (cosines[i, j], both[i, j]) for i, j in pairs}
        | {"conflicts": conflicts, "condition": _condition_number(gram)}
    )


def _condition_number(gram: Float[Array, "t t"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns (condition number over the numerical rank, 1), or (0, 0) for a Gramian of rank 0."""
    # The scale changes no ratio of eigenvalues; in units of the trace they stay in range.
    scale = jnp.trace(gram)
    values, _, significant = truncated_eigh(gram / jnp.where(scale > 0, scale, 1))
    nonzero = significant.any()
    # Eigenvalues are in ascending order, so the last one is the largest.
    smallest = jnp.where(significant, values, jnp.inf).min()
    return jnp.where(nonzero, values[-1] / smallest, 0), nonzero.astype(jnp.float32)
