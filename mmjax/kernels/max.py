"""The maximum over an axis, with a gradient that is exact and fast on CPU, and max pooling."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FEW_ENTRIES = (
    4  # entries that are split all at once: XLA merges concatenations in one another badly
)


def max_over_axis(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Returns the maximum over one axis; of equal entries one gets the gradient.

    It replaces `jnp.max`, whose gradient looks for the entries that equal the maximum: XLA on CPU
    (jaxlib 0.10.2) made gradients of that after a layer norm that were wrong by their own size.
    Here the entries are compared with each other, in halves until few are left, and those in
    pairs. On CPU the backward pass is much faster than that of `reduce_window`, too: what `split`
    takes apart, it puts together again.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.grad(lambda x: max_over_axis(x, axis=0))(jnp.array([1.0, 3.0, 3.0]))
      Array([0., 1., 0.], dtype=float32)
    """
    while (size := x.shape[axis]) > _FEW_ENTRIES:
        # A tree of pairwise maxima: halves first, so that few and long operations remain.
        parts = (size // 2, size // 2, size % 2)[: 2 + size % 2]
        a, b, *rest = jax.lax.split(x, parts, axis=axis)
        x = jnp.concatenate([_elementwise_max(a, b), *rest], axis=axis)
    entries = jax.lax.split(x, (1,) * size, axis=axis)
    while len(entries) > 1:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        entries = [*(_elementwise_max(a, b) for a, b in pairs), *entries[len(entries) // 2 * 2 :]]
    return entries[0].squeeze(axis)


def _elementwise_max(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the larger of two entries, the first of equal ones."""
    # Of equal entries the first one gets the whole gradient; `jnp.maximum` would split it.
    return jnp.where(a >= b, a, b)


def max_pool_2x2(x: Float[Array, "c h w b"]) -> Float[Array, "c p q b"]:
    """Computes 2x2 max pooling of stride 2; an odd last row or column is dropped.

    Rows come first, so that the gradient puts whole rows together, and single pixels only where
    half of them are left.
    """
    c, h, w, b = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return max_over_axis(max_over_axis(x.reshape(c, h // 2, 2, w // 2, 2, b), axis=2), axis=3)


def max_pool_time(x: Float[Array, "b t c"], pool: int) -> Float[Array, "b s c"]:
    """Computes the maximum of every `pool` steps; `pool` must divide the number of steps."""
    b, t, c = x.shape
    return max_over_axis(x.reshape(b, t // pool, pool, c), axis=2)
