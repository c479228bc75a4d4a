"""From any number of tokens to one vector an example."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.attention import masked
from mmjax.types import Tokens


class Pooled(NamedTuple):
    """One vector an example, zeros where the modality is not present."""

    values: Float[Array, "b d"]
    present: Bool[Array, " b"]


def pool(tokens: Tokens) -> Pooled:
    """Mean over the unmasked tokens. A modality is present where it has at least one.

    What stands under the mask, NaN included, has no effect on the result or its gradient.
    """
    kept = masked(tokens).values
    count = jnp.maximum(tokens.mask.sum(axis=1), 1).astype(kept.dtype)
    return Pooled(kept.sum(axis=1) / count[:, None], tokens.mask.any(axis=1))


def pool_all(tokens: dict[str, Tokens]) -> dict[str, Pooled]:
    """Every modality pooled, in the order of the names."""
    return {m: pool(tokens[m]) for m in sorted(tokens)}


def project_all(pooled: dict[str, Pooled], width: int) -> dict[str, Pooled]:
    """A Dense layer a modality, `project_M`, to one width; zeros where it is not present.

    For a compact method.
    """
    return {
        m: Pooled(
            jnp.where(x.present[:, None], nn.Dense(width, name=f"project_{m}")(x.values), 0),
            x.present,
        )
        for m, x in pooled.items()
    }


def mean_of_present(
    values: Float[Array, "m b ..."], present: Bool[Array, "m b"]
) -> Float[Array, "b ..."]:
    """Mean over the modalities that are present; zeros where none is."""
    there = jnp.expand_dims(present, range(2, values.ndim))
    count = jnp.maximum(there.sum(axis=0), 1).astype(values.dtype)
    return jnp.where(there, values, 0).sum(axis=0) / count
