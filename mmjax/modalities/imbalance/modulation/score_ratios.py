"""What the methods compare: one score per modality, and its ratio to those of the others."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scores = tuple[Float[Array, " m"], Bool[Array, " m"]]


def average_over_tasks(values: Float[Array, "m t"], counts: Float[Array, "m t"]) -> Scores:
    """Averages each modality's values over the tasks in which it has a count.

    All these tasks weigh the same, whatever their numbers of labels.

    Returns:
      The means, 0 without any count, and whether the modality has a count at all.

    Example:
      >>> values = jnp.array([[0.5, 0.75], [0.25, 0.0], [0.0, 0.0]])
      >>> counts = jnp.array([[4.0, 4.0], [4.0, 0.0], [0.0, 0.0]])
      >>> means, has_score = average_over_tasks(values, counts)
      >>> means.tolist(), has_score.tolist()
      ([0.625, 0.25, 0.0], [True, True, False])
    """
    counted = counts > 0
    tasks = counted.sum(axis=1)
    means = jnp.where(counted, values, 0.0).sum(axis=1) / jnp.maximum(tasks, 1)
    return means, tasks > 0


def compare_with_others(scores: Float[Array, " m"], has_score: Bool[Array, " m"]) -> Array:
    """Computes ρ_m: the ratio of each score to the mean of the other modalities' scores.

    It is 1, which is balance, for a modality without a score or without others that have one.

    Example:
      >>> scores, everywhere = jnp.array([0.75, 0.25]), jnp.array([True, True])
      >>> import numpy as np
      >>> print(np.asarray(compare_with_others(scores, everywhere)).round(3))
      [3.    0.333]
      >>> compare_with_others(scores, jnp.array([True, False])).tolist()
      [1.0, 1.0]
    """
    known = jnp.where(has_score, scores, 0.0)
    others = has_score.sum() - has_score
    mean = (known.sum() - known) / jnp.maximum(others, 1)
    comparable = has_score & (others > 0)
    # Underflow of the others' likelihoods must not divide by 0.
    tiny = jnp.finfo(scores.dtype).tiny
    return jnp.where(comparable, known / jnp.maximum(mean, tiny), 1.0)
