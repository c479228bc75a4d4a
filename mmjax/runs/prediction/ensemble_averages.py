"""Averages of the outputs of several models, in the form of the outputs: logits stay logits."""

import jax
import numpy as np
from jaxtyping import Array, Float


def average_log_probabilities(logits: Float[Array, "s ... c"]) -> Float[Array, "... c"]:
    """Returns the logarithms of the mean probabilities of `s` models.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]]))
      >>> print(f"{jnp.exp(average_log_probabilities(logits))[1]:.3f}")
      0.700
    """
    logs = jax.nn.log_softmax(logits, axis=-1)
    return jax.nn.logsumexp(logs, axis=0) - np.log(len(logits)).astype(np.float32)


def average_log_odds(logits: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """Returns the logits of the mean probabilities of `s` models, for yes-or-no predictions.

    Example:
      >>> import jax.numpy as jnp
      >>> print(average_log_odds(jnp.array([jnp.inf, -jnp.inf, 0.0])))  # of 1, 0 and 0.5
      0.0
    """
    yes = jax.nn.logsumexp(jax.nn.log_sigmoid(logits), axis=0)
    return yes - jax.nn.logsumexp(jax.nn.log_sigmoid(-logits), axis=0)


def average_values(values: Float[Array, "s ..."]) -> Float[Array, "..."]:
    """Returns the mean over `s` models."""
    return values.mean(axis=0)
