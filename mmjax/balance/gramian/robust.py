"""Aggregations that withstand some wrong gradients: Krum and the trimmed mean."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.balance.base import Balancer, Wrt, from_gram, from_jacobian, no_state
from mmjax.balance.jacobian_rows import a_row
from mmjax.balance.solvers.convex import uniform
from mmjax.types import Params


def krum(
    byzantine: int | None = None,
    selected: int = 1,
    *,
    wrt: Wrt = "params",
    weigh_heads: bool = False,
    rescale: bool = False,
) -> Balancer:
    """The mean of the gradients that are nearest to their neighbours.

    A gradient's score is the sum of its squared distances to the T - byzantine - 2 others that are
    nearest to it; those with the lowest scores are taken. Gradients with the same score up to
    round-off, as the two nearest of three always have, share their places evenly, where the paper
    takes the first of them.

    Args:
      byzantine: how many gradients may be wrong, below T/2 - 1; by default the most of them.
        Where fewer tasks have labels than that takes, the score is the nearest distance.
      selected: how many gradients are averaged; more than 1 is the paper's Multi-Krum.
      wrt: see `from_gram`.
      weigh_heads: see `from_gram`.
      rescale: see `from_gram`.

    Raises:
      ValueError: if `byzantine` or `selected` does not fit, with all tasks counted.

    Source: Blanchard et al., NeurIPS 2017 (arXiv:1703.02757).
    """
    if (byzantine or 0) < 0 or selected < 1:
        raise ValueError(
            f"krum: byzantine is {byzantine} and selected is {selected}; they must be at least "
            "0 and 1."
        )

    def init(tasks: Sequence[str], params: Params) -> tuple[()]:
        if byzantine is not None and 2 * byzantine + 2 >= len(tasks):
            raise ValueError(
                f"krum: of {len(tasks)} gradients fewer than {len(tasks) / 2 - 1:g} may be wrong, "
                f"but byzantine is {byzantine}."
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
    """1 / selected for the selected gradients, 0 for the others."""
    n = labeled.sum()
    wrong = jnp.maximum((n - 3) // 2, 0) if byzantine is None else byzantine
    neighbours = jnp.maximum(n - wrong - 2, 1)
    distances = jnp.where(
        labeled[:, None] & labeled[None] & ~jnp.eye(len(gram), dtype=bool),
        squared_distances(gram),
        jnp.inf,
    )
    scores = nearest_sum(distances, neighbours)
    noise = 16 * jnp.finfo(gram.dtype).eps * (neighbours * jnp.diag(gram) + scores)
    w = places(jnp.where(labeled, scores, jnp.inf), noise, selected)
    w = jnp.where(labeled, w, 0.0)
    return w / jnp.maximum(w.sum(), jnp.finfo(w.dtype).tiny)


def squared_distances(gram: Float[Array, "t t"]) -> Float[Array, "t t"]:
    """Squared distances between the gradients."""
    square = jnp.diag(gram)
    return jnp.maximum(square[:, None] + square[None] - gram - gram.T, 0.0)


def nearest_sum(distances: Float[Array, "t t"], neighbours: Int[Array, ""]) -> Float[Array, " t"]:
    """The sum of each row's smallest finite entries."""
    ordered = jnp.sort(distances, axis=1)
    near = (jnp.arange(len(distances)) < neighbours)[None] & jnp.isfinite(ordered)
    return jnp.where(near, ordered, 0.0).sum(1)


def places(
    scores: Float[Array, " t"], noise: Float[Array, " t"], selected: int
) -> Float[Array, " t"]:
    """Each one's share of the first places; equal scores share theirs evenly."""
    apart = jnp.maximum(noise[:, None], noise[None])
    better = (scores[None] < scores[:, None] - apart).sum(1)
    equal = (jnp.abs(scores[:, None] - scores[None]) <= apart).sum(1)
    equal = jnp.maximum(equal, 1)  # infinite scores equal not even themselves
    return jnp.clip((selected - better) / equal, 0.0, 1.0)


def trimmed_mean(trim: int = 1) -> Balancer:
    """Entry by entry, the mean of the gradients without the `trim` largest and smallest.

    Where that would leave none, the median is taken: with 2 tasks, their mean. Parameters of one
    task alone keep their own gradient, and the weights in the log are 1/T.

    Raises:
      ValueError: if `trim` is negative.

    Source: Yin et al., ICML 2018 (arXiv:1803.01498), definition 2, where `trim` is a share of T.
    """
    if trim < 0:
        raise ValueError(f"trimmed_mean: trim is {trim}; it must be 0 or more.")

    def direction(jacobian, losses, state, *, key, labeled):
        mean = jax.tree.map(lambda rows: trimmed(rows, labeled, trim), jacobian)
        return mean, uniform(labeled), state

    return from_jacobian(no_state, direction)


def trimmed(rows: Array, labeled: Bool[Array, " t"], trim: int) -> Array:
    """[t, ...] to [...]: the mean of the labelled rows between the extremes."""
    n = labeled.sum()
    cut = jnp.minimum(trim, jnp.maximum(n - 1, 0) // 2)
    place = ranks(rows, labeled)
    kept = a_row(labeled, rows) & (place >= cut) & (place < n - cut)
    return jnp.where(kept, rows, 0.0).sum(0) / jnp.maximum(n - 2 * cut, 1)


def ranks(rows: Array, labeled: Bool[Array, " t"]) -> Array:
    """How many labelled rows have a smaller entry in the same place; of equals the first is less.

    By comparing all pairs, which for few rows takes a tenth of the time of XLA's sorting on CPU.
    """
    index = a_row(jnp.arange(len(rows)), rows)

    def count(j: Int[Array, ""], found: Array) -> Array:
        other = rows[j][None]
        return found + (((other < rows) | ((other == rows) & (j < index))) & labeled[j])

    return jax.lax.fori_loop(0, len(rows), count, jnp.zeros(rows.shape, jnp.int32))
