"""Aggregations that are robust to some wrong gradients: Krum and the trimmed mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt, init_empty_state
from mmjax.balance.from_functions import from_gram, from_jacobian
from mmjax.balance.jacobian_rows import expand_to_rows
from mmjax.balance.solvers.simplex import uniform_weights
from mmjax.types import Params


def krum(
    byzantine: int | None = None,
    selected: int = 1,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """Averages the gradients that are closest to their neighbors.

    The score of a gradient is the sum of its squared distances to the T - byzantine - 2 others
    nearest to it; the gradients with the lowest scores are selected. Gradients with equal scores up
    to rounding, as the two nearest of three always have, share their places evenly, while the paper
    selects the first of them.

    Args:
      byzantine: number of gradients that may be wrong, below T/2 - 1; by default the largest. If
        too few tasks have labels for it, the score is the smallest distance.
      selected: number of gradients that are averaged; more than 1 is the paper's Multi-Krum.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Raises:
      ValueError: if `byzantine` or `selected` does not fit, with all tasks counted.

    Source: Blanchard et al., NeurIPS 2017 (arXiv:1703.02757).

    Example:
      The first two are the nearest, with equal scores; the outlier has no influence.

      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from mmjax.balance import krum, to_aggregator
      >>> aggregator = to_aggregator(krum(), ("a", "b", "c"))
      >>> gradients = jnp.array([[1.0, 0.0], [1.0, 2.0], [9.0, 9.0]])
      >>> print(np.asarray(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0]).round(3))
      [1. 1.]
    """
    if (byzantine or 0) < 0 or selected < 1:
        raise ValueError(
            f"krum: byzantine is {byzantine} and selected is {selected}; they must be at least "
            "0 and 1."
        )

    def init(tasks: Sequence[str], params: Params) -> tuple[()]:
        if byzantine is not None and 2 * byzantine + 2 >= len(tasks):
            raise ValueError(
                f"krum: byzantine is {byzantine}; with {len(tasks)} tasks it must be below "
                f"{len(tasks) / 2 - 1:g}."
            )
        if selected > len(tasks):
            raise ValueError(f"krum: selected is {selected}, but there are {len(tasks)} tasks.")
        return ()

    def weights(gram, *, key, labeled):
        return krum_weights(gram, key=key, labeled=labeled, byzantine=byzantine, selected=selected)

    balancer = from_gram(weights, wrt=wrt, weigh_heads=weigh_heads, rescale=rescale)
    return balancer._replace(init=init)


def krum_weights(
    gram: Float[Array, "t t"],
    *,
    key: Key[Array, ""],
    labeled: Bool[Array, " t"],
    byzantine: int | None = None,
    selected: int = 1,
) -> Float[Array, " t"]:
    """Returns 1 / selected for the selected gradients, 0 for the others."""
    n = labeled.sum()
    wrong = jnp.maximum((n - 3) // 2, 0) if byzantine is None else byzantine
    # Krum's score s(i) = sum of |g_i - g_j|^2 over the n - f - 2 nearest j, for f wrong gradients.
    neighbors = jnp.maximum(n - wrong - 2, 1)
    distances = jnp.where(
        labeled[:, None] & labeled[None] & ~jnp.eye(len(gram), dtype=bool),
        _squared_distances(gram),
        jnp.inf,
    )
    scores = _sum_nearest(distances, neighbors)
    # The rounding error of a score: that of squared lengths, and of their sum.
    noise = 16 * jnp.finfo(gram.dtype).eps * (neighbors * jnp.diag(gram) + scores)
    w = _selection_shares(jnp.where(labeled, scores, jnp.inf), noise, selected)
    w = jnp.where(labeled, w, 0.0)
    return w / jnp.maximum(w.sum(), jnp.finfo(w.dtype).tiny)


def _squared_distances(gram: Float[Array, "t t"]) -> Float[Array, "t t"]:
    """Returns the squared distances |g_i|^2 + |g_j|^2 - 2 g_i . g_j between the gradients."""
    square = jnp.diag(gram)
    return jnp.maximum(square[:, None] + square[None] - gram - gram.T, 0.0)


def _sum_nearest(distances: Float[Array, "t t"], neighbors: Int[Array, ""]) -> Float[Array, " t"]:
    """Sums the smallest finite entries of each row."""
    ordered = jnp.sort(distances, axis=1)
    near = (jnp.arange(len(distances)) < neighbors)[None] & jnp.isfinite(ordered)
    return jnp.where(near, ordered, 0.0).sum(1)


def _selection_shares(
    scores: Float[Array, " t"], noise: Float[Array, " t"], selected: int
) -> Float[Array, " t"]:
    """Returns each task's share of the selected places; equal scores share places evenly."""
    tolerance = jnp.maximum(noise[:, None], noise[None])
    better = (scores[None] < scores[:, None] - tolerance).sum(1)
    equal = (jnp.abs(scores[:, None] - scores[None]) <= tolerance).sum(1)
    # The difference of infinite scores is NaN, so that they do not even equal themselves.
    equal = jnp.maximum(equal, 1)
    return jnp.clip((selected - better) / equal, 0.0, 1.0)


def trimmed_mean(trim: int = 1) -> Balancer:
    """Averages each entry of the gradients without its `trim` largest and smallest values.

    If that would leave none, it takes the median: with 2 tasks, their mean. Task-specific
    parameters keep their gradient, and the weights in the log are 1/T.

    Raises:
      ValueError: if `trim` is negative.

    Source: Yin et al., ICML 2018 (arXiv:1803.01498), definition 2, where `trim` is a share of T.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmjax.balance import to_aggregator, trimmed_mean
      >>> aggregator = to_aggregator(trimmed_mean(), ("a", "b", "c"))
      >>> gradients = jnp.array([[1.0, 5.0], [2.0, -9.0], [99.0, 3.0]])
      >>> print(aggregator.update(gradients, aggregator.init(jnp.zeros(2)))[0])
      [2. 3.]
    """
    if trim < 0:
        raise ValueError(f"trimmed_mean: trim is {trim}; it must be 0 or more.")

    def direction(jacobian, losses, state, *, key, labeled):
        mean = jax.tree.map(lambda rows: _average_trimmed(rows, labeled, trim), jacobian)
        return mean, uniform_weights(labeled), state

    return from_jacobian(init_empty_state, direction)


def _average_trimmed(rows: Array, labeled: Bool[Array, " t"], trim: int) -> Array:
    """Averages the labeled rows between the extremes, per entry: [t, ...] to [...]."""
    n = labeled.sum()
    # At least one value, or two for an even n, must remain: the median.
    cut = jnp.minimum(trim, jnp.maximum(n - 1, 0) // 2)
    # An entry counts if `cut` values or more are below it and `cut` or more above it.
    rank = _rank_entries(rows, labeled)
    inside = expand_to_rows(labeled, rows) & (rank >= cut) & (rank < n - cut)
    return jnp.where(inside, rows, 0.0).sum(0) / jnp.maximum(n - 2 * cut, 1)


def _rank_entries(rows: Array, labeled: Bool[Array, " t"]) -> Array:
    """Counts the labeled rows with a smaller entry in the same place; ties are broken by index.

    It compares all pairs, which for few rows takes a tenth of the time of XLA's sort on CPU.
    """
    index = expand_to_rows(jnp.arange(len(rows)), rows)

    def count_smaller(j: Int[Array, ""], counts: Array) -> Array:
        other = rows[j][None]
        return counts + (((other < rows) | ((other == rows) & (j < index))) & labeled[j])

    return jax.lax.fori_loop(0, len(rows), count_smaller, jnp.zeros(rows.shape, jnp.int32))
