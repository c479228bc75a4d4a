"""The tokens of all modalities at one width, for fusions by attention."""

import functools

import flax.linen as nn

from mmjax.kernels.attention import dot_general_2d, zero_masked_tokens
from mmjax.types import Tokens


def embed_modalities(tokens: dict[str, Tokens], width: int) -> dict[str, Tokens]:
    """Projects each modality's tokens to one width, in the order of the names.

    The projection's bias identifies the modality of a token. To be called in a compact method.
    """
    dense = functools.partial(nn.Dense, width, dot_general=dot_general_2d)
    # Masked before the projection, since NaN times 0 in its gradient would be NaN.
    return {
        m: Tokens(dense(name=f"project_{m}")(zero_masked_tokens(tokens[m]).values), tokens[m].mask)
        for m in sorted(tokens)
    }


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
