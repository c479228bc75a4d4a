"""Pooling of tokens to one vector per example, and projections of these."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.kernels.attention import zero_masked_tokens
from mmjax.types import Tokens


class Pooled(NamedTuple):
    """One vector per example, zeros if the modality is absent; and whether it is present."""

    values: Float[Array, "b d"]
    present: Bool[Array, " b"]


def pool(tokens: Tokens) -> Pooled:
    """Computes the mean over the unmasked tokens; a modality with at least one is present.

    Masked values, NaN included, have no effect on the result or its gradient.

    Example:
      >>> import jax.numpy as jnp
      >>> values = jnp.array([[[1.0], [3.0]], [[5.0], [jnp.nan]]])
      >>> pooled = pool(Tokens(values, jnp.array([[True, True], [True, False]])))
      >>> pooled.values.tolist(), pooled.present.tolist()
      ([[2.0], [5.0]], [True, True])
    """
    values = zero_masked_tokens(tokens).values
    # At least 1, so that an absent modality gives 0 / 1 and no NaN gradient.
    count = jnp.maximum(tokens.mask.sum(axis=1), 1).astype(values.dtype)
    return Pooled(values.sum(axis=1) / count[:, None], tokens.mask.any(axis=1))


def pool_modalities(tokens: dict[str, Tokens]) -> dict[str, Pooled]:
    """Pools every modality, in the order of the names."""
    return {m: pool(tokens[m]) for m in sorted(tokens)}


def project_modalities(pooled: dict[str, Pooled], width: int) -> dict[str, Pooled]:
    """Projects each modality to one width by a Dense layer `project_M`; zeros if it is absent.

    To be called in a compact method.
    """
    projected = {}
    for m, (values, present) in pooled.items():
        values = nn.Dense(width, name=f"project_{m}")(values)
        # The bias must not speak for an absent modality.
        projected[m] = Pooled(jnp.where(present[:, None], values, 0), present)
    return projected


def mean_over_present(
    values: Float[Array, "m b ..."], present: Bool[Array, "m b"]
) -> Float[Array, "b ..."]:
    """Computes the mean over the present modalities; zeros if there is none."""
    mask = jnp.expand_dims(present, range(2, values.ndim))
    # At least 1, so that an example without any modality gives 0 / 1.
    count = jnp.maximum(mask.sum(axis=0), 1).astype(values.dtype)
    return jnp.where(mask, values, 0).sum(axis=0) / count


_MAX_PATTERN_MODALITIES = 12  # a table has 2^M rows


def encode_patterns(present: Bool[Array, "m b"]) -> tuple[Int[Array, " b"], int]:
    """Numbers the pattern of the modalities that each example has: bit i is modality i.

    Returns:
      The numbers, and how many patterns there are, 2^M: the rows of a table that they index.

    Raises:
      ValueError: if there are too many modalities for such a table.

    Example:
      >>> import jax.numpy as jnp
      >>> pattern, count = encode_patterns(jnp.array([[True, False], [True, True]]))
      >>> pattern.tolist(), count
      ([3, 2], 4)
    """
    modalities = len(present)
    if modalities > _MAX_PATTERN_MODALITIES:
        raise ValueError(
            f"{modalities} modalities have 2^{modalities} patterns of missing ones, too many for a "
            f"learned table; use at most {_MAX_PATTERN_MODALITIES} modalities, or missing='token'."
        )
    powers = 2 ** jnp.arange(modalities)
    return (present * powers[:, None]).sum(axis=0), 2**modalities
