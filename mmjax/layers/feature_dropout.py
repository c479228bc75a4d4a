"""Dropout of whole features, the same in all tokens of an example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def drop_features(
    values: Float[Array, "b n d"], rates: Float[Array, " b"], keys: Key[Array, " b"]
) -> Float[Array, "b n d"]:
    """Zeros floor(rate d) of the features of each example, the same in all of its tokens.

    The others are divided by 1 - rate, but multiplied by 10 at most.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 2)
      >>> dropped = drop_features(jnp.ones((2, 1, 4)), jnp.array([0.5, 0.0]), keys)
      >>> dropped.sum(axis=(1, 2)).tolist(), float(dropped.max())
      ([4.0, 4.0], 2.0)
    """

    def choose_factors(rate: Float[Array, ""], key: Key[Array, ""]) -> Float[Array, " d"]:
        width = values.shape[-1]
        order = jax.random.permutation(key, width)
        return jnp.where(order < jnp.floor(rate * width), 0.0, 1 / jnp.maximum(1 - rate, 0.1))

    factors = jax.vmap(choose_factors)(rates, keys)
    return values * factors[:, None].astype(values.dtype)
