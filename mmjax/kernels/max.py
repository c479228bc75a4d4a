"""The maximum over an axis, with a gradient that can be relied on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEW = 4  # entries that are split all at once: XLA merges concatenations in one another badly


def largest(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The maximum over one axis; of equal entries one gets the gradient.

    In place of `max`, whose gradient looks for the entries that equal the maximum: XLA on CPU
    (jaxlib 0.10.2) made gradients of that after a layer norm that were wrong by their own size.
    Here the entries are compared with each other, in halves until few are left, and those in
    pairs. On CPU the backward pass is much faster than that of `reduce_window`, too: what `split`
    takes apart, it puts together again.
    """
    while (size := x.shape[axis]) > FEW:
        parts = (size // 2, size // 2, size % 2)[: 2 + size % 2]
        a, b, *rest = jax.lax.split(x, parts, axis=axis)
        x = jnp.concatenate([larger(a, b), *rest], axis=axis)
    entries = jax.lax.split(x, (1,) * size, axis=axis)
    while len(entries) > 1:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        entries = [*(larger(a, b) for a, b in pairs), *entries[len(entries) // 2 * 2 :]]
    return entries[0].squeeze(axis)


def larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """The larger of two entries, the first of equal ones."""
    return jnp.where(a >= b, a, b)
