"""What fusions share: tokens pooled to one vector per example, and projected to one width."""

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.kernels.attention import dot_general_2d, zero_masked_tokens
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


def stack_pooled(
    pooled: Mapping[str, Pooled],
) -> tuple[Float[Array, "m b d"], Bool[Array, "m b"]]:
    """Stacks the vectors of modalities of one width, and whether they are present."""
    values, present = zip(*pooled.values(), strict=True)
    return jnp.stack(values), jnp.stack(present)


def concatenate_pooled(
    pooled: Mapping[str, Pooled],
) -> tuple[Float[Array, "b d"], Bool[Array, " b"]]:
    """Concatenates the modalities' vectors; also returns whether any modality is present."""
    values, present = zip(*pooled.values(), strict=True)
    return jnp.concatenate(values, axis=-1), jnp.stack(present).any(axis=0)


def stack_presence(modalities: Iterable[Tokens]) -> Bool[Array, "m b"]:
    """Returns whether each modality is present: whether any of its tokens is unmasked."""
    return jnp.stack([tokens.mask.any(axis=1) for tokens in modalities])


def mean_over_present(
    values: Float[Array, "m b ..."], present: Bool[Array, "m b"]
) -> Float[Array, "b ..."]:
    """Computes the mean over the present modalities; zeros if there is none."""
    mask = jnp.expand_dims(present, range(2, values.ndim))
    # At least 1, so that an example without any modality gives 0 / 1.
    count = jnp.maximum(mask.sum(axis=0), 1).astype(values.dtype)
    return jnp.where(mask, values, 0).sum(axis=0) / count


def embed_modalities(tokens: dict[str, Tokens], width: int) -> dict[str, Tokens]:
    """Projects each modality's tokens to one width, in the order of the names.

    The projection's bias identifies the modality of a token. To be called in a compact method.
    """
    dense = functools.partial(nn.Dense, width, dot_general=dot_general_2d)
    # Masked before the projection, since NaN times 0 in its gradient would be NaN.
    embedded = {}
    for m in sorted(tokens):
        values = dense(name=f"project_{m}")(zero_masked_tokens(tokens[m]).values)
        embedded[m] = Tokens(values, tokens[m].mask)
    return embedded


def check_several_tokens(fusion: nn.Module, tokens: dict[str, Tokens], alternative: str) -> None:
    """Raises ValueError if there are several modalities of one token each.

    Attention to a single token learns no queries and keys.
    """
    if len(tokens) > 1 and all(t.mask.shape[1] == 1 for t in tokens.values()):
        raise ValueError(
            f"{type(fusion).__name__} has attention to the tokens of one modality, but every "
            "encoder returns one token, so there is nothing to choose from; let an encoder return "
            f"several, as by output='all', or {alternative}"
        )


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
