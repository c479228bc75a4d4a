"""EMAP: the additive part of a model, estimated from exchanged modalities of a sample."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mmjax.types import Batch


def choose_sample_size(limit: int, modalities: int) -> int:
    """Returns the largest number of examples, up to a limit, that `project_additively` takes.

    It must exceed the number of modalities M, and have no prime factor below M.

    Raises:
      ValueError: if the limit is not above M.

    Example:
      >>> choose_sample_size(256, modalities=2), choose_sample_size(256, modalities=4)
      (256, 253)
    """
    if limit <= modalities:
        raise ValueError(
            f"EMAP has a sample of {limit} examples, but needs more than the {modalities} "
            "modalities; give more examples."
        )
    smaller = math.factorial(modalities - 1)
    return next(n for n in range(limit, 0, -1) if math.gcd(n, smaller) == 1 and n > modalities)


def project_additively(
    predict: Callable[[Batch], Any],
    batch: Batch,
    modalities: Sequence[str],
    *,
    rounds: int = 1,
    seed: int = 0,
) -> Any:
    """Estimates EMAP, the additive part of a model: f̃ = Σ_m E[f | x_m] - (M - 1) E f.

    Among all sums of functions of single modalities, f̃ is the nearest to f, in squares, when the
    modalities of the examples are combined at random. What the metric loses from f to f̃ is what
    the model owes to interactions; see the table in docs/contribution.md for when that is so.

    Hessel and Lee average over all pairs of modalities in the sample, those of one example among
    them, whose own f makes up 1/n of the mean: f̃ is biased towards f. Here every combination has
    its modalities from M different examples, and E f at an example leaves it out. So, for
    independent examples, each f̃(x) is unbiased given x. An additive f is its own projection.

    A round predicts n (n - 1) combinations: for two modalities all there are, for more a balanced
    part in which any two modalities form each pair of different examples once. A pure function,
    to be compiled as a whole.

    Source: Hessel and Lee, EMNLP 2020.

    Args:
      predict: batch -> outputs, a tree of arrays [n ...], such as logits.
      batch: the examples, all at once; their number n is one of `choose_sample_size`.
      modalities: names of the model's M modalities.
      rounds: number of rounds; beyond two modalities more are more exact.
      seed: seed of the combinations.

    Returns:
      The estimate of f̃ at every example, as `predict` returns f.

    Raises:
      ValueError: if n is not such a number.

    Example:
      >>> def predict(batch):  # an additive one
      ...     return batch.inputs["a"] + 2 * batch.inputs["b"]
      >>> bits = {"a": jnp.array([1.0, 1.0, -1.0, -1.0]), "b": jnp.array([1.0, -1.0, 1.0, -1.0])}
      >>> batch = Batch(bits, {m: jnp.ones(4, bool) for m in bits}, {}, {}, {})
      >>> project_additively(predict, batch, ["a", "b"]).round(2).tolist()
      [3.0, -1.0, 1.0, -3.0]
    """
    count = batch.size
    if choose_sample_size(count, len(modalities)) != count:
        raise ValueError(
            f"EMAP of {len(modalities)} modalities has {count} examples, whose number must not "
            f"have a prime factor below {len(modalities)}; take choose_sample_size(...) of them."
        )
    rng = np.random.default_rng(seed)
    orders = jnp.asarray([rng.permutation(count) for _ in range(rounds)])
    totals = _sum_over_partners(predict, jax.tree.map(jnp.asarray, batch), modalities, orders)
    return jax.tree.map(lambda x: _combine_means(x / (rounds * (count - 1))), totals)


def _combine_means(conditional: Array) -> Array:
    """Computes f̃ from E[f | x_m], an array [M n ...]."""
    modalities, count = conditional.shape[:2]
    of_example = conditional.sum(axis=0)
    # Each step has M of its n combinations with an example's modalities; E f is over the others.
    everything = count * conditional[0].mean(axis=0)
    expected = (everything[None] - of_example) / (count - modalities)
    return of_example - (modalities - 1) * expected


def _sum_over_partners(
    predict: Callable[[Batch], Any],
    batch: Batch,
    modalities: Sequence[str],
    orders: Int[Array, "rounds n"],
) -> Any:
    """Sums f over the combinations of all rounds with each modality of each example [M n ...]."""
    count = batch.size

    def add(totals: Any, step: tuple[Array, Array]) -> tuple[Any, None]:
        order, distance = step
        # Modality m comes from m `distance` places further on, in the order of the round.
        positions = jnp.arange(count)
        rows = [order[(positions + m * distance) % count] for m in range(len(modalities))]
        mixed = predict(_mix_modalities(batch, dict(zip(modalities, rows, strict=True))))

        def add_output(total: Array, output: Array) -> Array:
            for m, owners in enumerate(rows):
                total = total.at[m, owners].add(output)
            return total

        return jax.tree.map(add_output, totals, mixed), None

    # A running sum: the outputs of all combinations would not fit in memory.
    shapes = jax.eval_shape(predict, batch)
    zeros = jax.tree.map(lambda x: jnp.zeros((len(modalities), *x.shape), x.dtype), shapes)
    distances = jnp.arange(1, count)
    steps = (jnp.repeat(orders, count - 1, axis=0), jnp.tile(distances, len(orders)))
    totals, _ = jax.lax.scan(add, zeros, steps)
    return totals


def _mix_modalities(batch: Batch, rows: dict[str, Int[Array, " n"]]) -> Batch:
    """Takes each modality, its presence and its lengths from the examples at its rows."""
    parts = {}
    for name in ("inputs", "present", "lengths"):
        part = getattr(batch, name)
        taken = {m: jax.tree.map(lambda x, r=rows[m]: x[r], part[m]) for m in part if m in rows}
        parts[name] = part | taken
    return batch._replace(**parts)
