"""Corruptions of vectors, the rows of a table, and of categories.

Each factory takes the statistics of the modality and returns `(key, x, length, level) -> x`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from mmjax.modalities.robustness.corruption import Corruption, Level, draw_mask, restore_type
from mmjax.modalities.robustness.input_statistics import InputStatistics, expand_features


def add_feature_noise(statistics: InputStatistics, scale: float = 1.0) -> Corruption:
    """Adds normal noise of `scale` · level standard deviations of each feature.

    Example:
      >>> import numpy as np
      >>> from mmjax.data.dataset import Modality
      >>> from mmjax.modalities.robustness.input_statistics import measure_values
      >>> rows = np.array([[0.0, 5.0], [2.0, 5.0]])  # the second feature is constant
      >>> noise = add_feature_noise(measure_values(rows, Modality((2,))))
      >>> noisy = noise(jax.random.key(0), jnp.ones(2), None, jnp.float32(1))
      >>> (noisy != 1).tolist()
      [True, False]
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        deviation = scale * level * expand_features(statistics.deviation, x.ndim)
        noisy = x.astype(jnp.float32) + deviation * jax.random.normal(key, x.shape)
        return restore_type(noisy, x, level)

    return apply


def drop_features(statistics: InputStatistics) -> Corruption:
    """Replaces each feature by its mean over the training split with probability `level`."""

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        mean = expand_features(statistics.mean, x.ndim)
        dropped = jnp.where(draw_mask(key, level, x.shape), mean, x.astype(jnp.float32))
        return restore_type(dropped, x, level)

    return apply


def swap_features(statistics: InputStatistics) -> Corruption:
    """Replaces each feature by that of a random training example with probability `level`.

    All features of an example come from one other example: at level 1 it is that one.
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        where_key, donor_key = jax.random.split(key)
        donors = jnp.asarray(statistics.donors)
        donor = donors[jax.random.randint(donor_key, (), 0, len(donors))]
        return jnp.where(draw_mask(where_key, level, x.shape), donor.astype(x.dtype), x)

    return apply


def forget_categories(statistics: InputStatistics) -> Corruption:
    """Replaces each category by the unknown one of its column with probability `level`."""

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        unknown = jnp.array(statistics.fill, x.dtype)
        return jnp.where(draw_mask(key, level, x.shape), unknown, x)

    return apply
