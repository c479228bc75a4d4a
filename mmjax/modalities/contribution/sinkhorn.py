"""Sinkhorn's iterations, which scale positive tables to given marginals."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ITERATIONS = 20
_SMALLEST = 1e-6  # of a predicted probability: the logarithm of 0 has no gradient


def match_class_frequencies(
    probabilities: Float[Array, "b c"], prior: Float[Array, " c"]
) -> Float[Array, "b c"]:
    """Scales a batch of predictions to a joint table with uniform rows and the given class shares.

    Rows sum to 1 / b nearly, up to the last iteration; columns sum to the prior exactly.

    Example:
      >>> table = match_class_frequencies(jnp.array([[0.9, 0.1], [0.6, 0.4]]), jnp.full(2, 0.5))
      >>> table.sum(axis=0).round(4).tolist(), table.sum(axis=1).round(4).tolist()
      ([0.5, 0.5], [0.5, 0.5])
    """
    count = len(probabilities)
    table = jnp.maximum(probabilities, _SMALLEST) / count
    for _ in range(_ITERATIONS):
        table = table / table.sum(axis=1, keepdims=True) / count
        table = table * (jnp.maximum(prior, _SMALLEST) / table.sum(axis=0))[None]
    return table


def couple(
    logits: Float[Array, "i j c"], log_rows: Float[Array, "i c"], log_columns: Float[Array, "j c"]
) -> Float[Array, "i j c"]:
    """Scales exp(logits) to the marginals of each class by Sinkhorn's iterations, in logarithms.

    Example:
      >>> half = jnp.log(jnp.full((2, 1), 0.5))
      >>> jnp.exp(couple(jnp.zeros((2, 2, 1)), half, half))[..., 0].round(4).tolist()
      [[0.25, 0.25], [0.25, 0.25]]
    """

    def iterate(_: Any, scales: Any) -> Any:
        _, columns = scales
        rows = log_rows - jax.nn.logsumexp(logits + columns[None], axis=1)
        # The columns are scaled last: their marginals are exact, those of the rows nearly.
        columns = log_columns - jax.nn.logsumexp(logits + rows[:, None], axis=0)
        return rows, columns

    start = jnp.zeros_like(log_rows), jnp.zeros_like(log_columns)
    rows, columns = jax.lax.fori_loop(0, _ITERATIONS, iterate, start)
    return logits + rows[:, None] + columns[None]
