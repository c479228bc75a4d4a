"""Dropout whose rate may differ between the replicas of one program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

DROPOUT_MASK = "dropout_mask"
"""Name of the drawn masks, by which policies of `jax.checkpoint` may keep them."""


class Dropout(nn.Module):
    """Sets values to zero at a rate, and divides the others by 1 - rate.

    Flax's module branches on whether the rate is 0 or 1, which may differ between replicas; this
    one does not branch on a traced rate. The draws are the same.

    Source: Srivastava et al., JMLR 2014.

    Attributes:
      rate: share of values that become zero in training; may be a traced number.
      shared: axes along which all values share one draw.

    Example:
      >>> x = jnp.ones((2, 3))
      >>> dropped = Dropout(0.5).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
      >>> sorted(set(dropped.ravel().tolist()))
      [0.0, 2.0]
    """

    rate: float
    shared: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "..."], *, train: bool) -> Float[Array, "..."]:
        """Returns an array of the same shape; unchanged if not in training."""
        if not train or (isinstance(self.rate, float | int) and self.rate == 0):
            return x
        # Inverted dropout: kept entries are divided by the probability of keeping, so that the
        # expected value does not change and evaluation needs no scaling.
        keep = 1 - jnp.asarray(self.rate)
        # Axes of size 1 broadcast: one draw for all entries along them.
        shape = tuple(1 if i in self.shared else size for i, size in enumerate(x.shape))
        is_kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        is_kept = checkpoint_name(is_kept, DROPOUT_MASK)
        # A rate of 1 must not divide by 0: its NaN gradient would survive the mask.
        scaled = x / jnp.where(keep > 0, keep, 1).astype(x.dtype)
        return jnp.where(is_kept, scaled, jnp.zeros((), x.dtype))
