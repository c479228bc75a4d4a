"""Dropout whose rate may differ between the lanes of one program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Dropout(nn.Module):
    """Sets values to zero at a rate and divides those that stay by the rate of staying.

    flax's module asks whether the rate is 0 or 1, which rates of several lanes may answer
    differently; this one asks nothing of a traced rate. The draws are the same.

    Source: Srivastava et al., JMLR 2014.

    Attributes:
      rate: share of values that become zero, while training; a traced number will do.
      shared: axes along which all values share one draw.
    """

    rate: float
    shared: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: Float[Array, "..."], *, train: bool) -> Float[Array, "..."]:
        """An array of any shape."""
        if not train or (isinstance(self.rate, float | int) and self.rate == 0):
            return x
        keep = 1 - jnp.asarray(self.rate)
        shape = tuple(1 if i in self.shared else size for i, size in enumerate(x.shape))
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        scaled = x / jnp.where(keep > 0, keep, 1).astype(x.dtype)
        return jnp.where(kept, scaled, jnp.zeros((), x.dtype))
