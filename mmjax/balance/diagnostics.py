"""What the tasks' gradients look like: their angles, lengths and conflicts."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.balance.solvers.convex import unit_gram
from mmjax.balance.solvers.spectrum import spectrum

Totals = dict[str, tuple[Array, Array]]


def diagnose(gram: Float[Array, "t t"], tasks: Sequence[str], labeled: Bool[Array, " t"]) -> Totals:
    """Metrics (total, count) of the Gramian of the tasks' gradients, over the labelled tasks.

    Returns:
      "gradient_norm/TASK"; "cosine/A,B" for every pair of tasks, 0 where a gradient is zero;
      "conflicts", the share of pairs whose cosine is negative; "condition", the ratio of the
      largest to the smallest eigenvalue of the Gramian over its numerical rank.
    """
    t = len(tasks)
    cosines, norms, nonzero = unit_gram(gram)
    norms = jnp.where(nonzero, norms, 0)
    pairs = [(i, j) for i in range(t) for j in range(i + 1, t)]
    both = (labeled[:, None] & labeled[None, :]).astype(jnp.float32)
    conflicts = jnp.triu(both * (cosines < 0), 1).sum(), jnp.triu(both, 1).sum()
    return (
        {f"gradient_norm/{task}": (norms[i], both[i, i]) for i, task in enumerate(tasks)}
        | {f"cosine/{tasks[i]},{tasks[j]}": (cosines[i, j], both[i, j]) for i, j in pairs}
        | {"conflicts": conflicts, "condition": condition(gram)}
    )


def condition(gram: Float[Array, "t t"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The condition number over the numerical rank, and 1; (0, 0) of a Gramian of rank 0."""
    scale = jnp.trace(gram)
    values, _, kept = spectrum(gram / jnp.where(scale > 0, scale, 1))
    some = kept.any()
    smallest = jnp.where(kept, values, jnp.inf).min()
    return jnp.where(some, values[-1] / smallest, 0), some.astype(jnp.float32)
