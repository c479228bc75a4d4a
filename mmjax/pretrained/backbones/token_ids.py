"""Token ids of text: checks, the mask of true tokens, and outputs that are one vector per text."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.data.dataset import Modality
from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import make_time_mask
from mmjax.types import Tokens

# Tables of embeddings are padded to a multiple of 8, 64 or 128 rows for speed.
_MAX_UNUSED_ROWS = 127


def check_vocabulary(modality: Modality, name: str, rows: int, positions: int) -> None:
    """Raises ValueError unless a modality's tokens are those of an embedding table.

    Args:
      modality: the text.
      name: its name, for the message.
      rows: number of rows of the embedding table.
      positions: the largest number of tokens.
    """
    count = len(modality.vocabulary)
    if count and not count <= rows <= count + _MAX_UNUSED_ROWS:
        raise ValueError(
            f"Modality {name!r} has {count} different tokens, but the embedding table of its "
            f"encoder has {rows} rows; read the text by `Text(..., tokenizer=...)` with the "
            f"tokenizer.json of the same model, or set vocabulary to {count}."
        )
    if modality.shape and modality.shape[0] > positions:
        raise ValueError(
            f"Modality {name!r} has texts of up to {modality.shape[0]} tokens, but its encoder has "
            f"{positions} positions; give the `Text` longest={positions}."
        )


def mask_token_ids(
    x: Num[Array, "b ..."], length: Int[Array, " b"] | None, positions: int, encoder: str
) -> Tokens:
    """Returns the ids with 0 behind the ends of the texts, and the mask of true tokens.

    Raises:
      ValueError: unless x is integers [b time] of at most `positions` steps.
    """
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            f"{encoder} needs integer tokens [b time] but got {x.dtype}{list(x.shape)}; "
            "read text by `Text(..., tokenizer=...)`."
        )
    if x.shape[1] > positions:
        raise ValueError(
            f"{encoder} has {positions} positions but got texts of {x.shape[1]} tokens; give the "
            f"`Text` longest={positions}."
        )
    mask = make_time_mask(x, length)
    return Tokens(jnp.where(mask, x, 0), mask)


def zero_empty_texts(x: Float[Array, "b d"], length: Int[Array, " b"] | None) -> Tokens:
    """Returns one vector per text as tokens, zeros for texts of length 0."""
    if length is not None:
        x = jnp.where((length > 0)[:, None], x, 0)
    return as_one_token(x)
