"""The layout of images inside convolutional networks: batch axis last."""

from jaxtyping import Array, Float


def to_batch_last(x: Float[Array, "b h w c"]) -> Float[Array, "c h w b"]:
    """Moves the batch axis to the end and the channels to the front.

    Neighbors in memory are then the same pixel of several examples, so that shifting, pooling and
    normalizing are arithmetic on whole vectors for any number of channels.

    Example:
      >>> import jax.numpy as jnp
      >>> to_batch_last(jnp.zeros((2, 28, 30, 3))).shape
      (3, 28, 30, 2)
    """
    return x.transpose(3, 1, 2, 0)


def to_batch_first(x: Float[Array, "c h w b"]) -> Float[Array, "b h w c"]:
    """Undoes `to_batch_last`."""
    return x.transpose(3, 1, 2, 0)


def flatten_examples(x: Float[Array, "c h w b"]) -> Float[Array, "b c*h*w"]:
    """Flattens each example into one vector, channel after channel.

    In this order the transposition, and that of its gradient, read what is still in the cache.
    """
    return x.reshape(-1, x.shape[-1]).T
