"""Sequences of different lengths: which of their steps are real, and what that means for a mean."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from mmjax.encoders.mlp import to_float
from mmjax.masks import make_length_mask
from mmjax.types import Tokens


def real_steps(x: Num[Array, "b t ..."], length: Int[Array, " b"] | None) -> Tokens:
    """The sequences as floats, with zeros behind their ends, and which steps are real."""
    mask = time_mask(x, length)
    real = jnp.expand_dims(mask, range(2, x.ndim))
    return Tokens(to_float(jnp.where(real, x, jnp.zeros((), x.dtype))), mask)


def time_mask(x: Num[Array, "b t ..."], length: Int[Array, " b"] | None) -> Bool[Array, "b t"]:
    """True where a sequence has not ended."""
    if length is None:
        return jnp.ones(x.shape[:2], dtype=bool)
    return make_length_mask(length, x.shape[1], jnp)


def time_mean(x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b d"]:
    """Mean over the unmasked times; zeros where there is none."""
    count = jnp.maximum(mask.sum(axis=1), 1).astype(x.dtype)
    return jnp.where(mask[:, :, None], x, 0).sum(axis=1) / count[:, None]


def check_sequence(shape: tuple[int, ...], encoder: str) -> None:
    """Raises ValueError unless the shape is [b time d]."""
    if len(shape) != 3:
        raise ValueError(
            f"{encoder} needs sequences [b time d] but got shape {shape}; "
            "give scalars a last axis of 1, and embed integer tokens by TextEncoder."
        )
