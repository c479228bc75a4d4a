"""Masks, means and checks of sequences of different lengths."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mmjax.encoders.mlp import to_float
from mmjax.masks import make_length_mask
from mmjax.types import Shape, Tokens


def mask_padding(x: Num[Array, "b t ..."], length: Int[Array, " b"] | None) -> Tokens:
    """Returns the sequences as floats with zeros behind their ends, and the mask of true steps."""
    mask = make_time_mask(x, length)
    # Padding may hold NaN, and NaN times 0 is NaN: it is replaced, not multiplied.
    real = jnp.expand_dims(mask, range(2, x.ndim))
    return Tokens(to_float(jnp.where(real, x, jnp.zeros((), x.dtype))), mask)


def make_time_mask(x: Num[Array, "b t ..."], length: Int[Array, " b"] | None) -> Bool[Array, "b t"]:
    """Marks the steps before the end of each sequence; all of them if `length` is None."""
    if length is None:
        return jnp.ones(x.shape[:2], dtype=bool)
    return make_length_mask(length, x.shape[1], jnp)


def mean_over_time(x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Computes the mean over the unmasked steps; zeros for a sequence without any."""
    # At least 1, so that an empty sequence gives 0 / 1 and no NaN gradient.
    count = jnp.maximum(mask.sum(axis=1), 1).astype(x.dtype)
    return jnp.where(mask[:, :, None], x, 0).sum(axis=1) / count[:, None]


def check_sequence_shape(shape: Shape, encoder: str) -> None:
    """Raises ValueError unless the shape is [b time d]."""
    if len(shape) != 3:
        raise ValueError(
            f"{encoder} needs sequences [b time d] but got shape {shape}; "
            "give scalars a last axis of 1, and embed integer tokens by TextEncoder."
        )
