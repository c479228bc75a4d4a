"""From any number of tokens to one vector an example."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.types import Tokens


class Pooled(NamedTuple):
    """One vector an example, zeros where the modality is not present."""

    values: Float[Array, "b d"]
    present: Bool[Array, " b"]


def pool(tokens: Tokens) -> Pooled:
    """Mean over the unmasked tokens. A modality is present where it has at least one.

    What stands under the mask, NaN included, has no effect on the result or its gradient.
    """
    kept = jnp.where(tokens.mask[:, :, None], tokens.values, 0)
    count = jnp.maximum(tokens.mask.sum(axis=1), 1).astype(kept.dtype)
    return Pooled(kept.sum(axis=1) / count[:, None], tokens.mask.any(axis=1))


def pool_all(tokens: dict[str, Tokens]) -> dict[str, Pooled]:
    """Every modality pooled, in the order of the names."""
    return {m: pool(tokens[m]) for m in sorted(tokens)}
