"""An encoder of text given as integer tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.data.dataset import Modality
from mmjax.encoders.recurrent import RecurrentEncoder
from mmjax.types import Tokens


class TextEncoder(nn.Module):
    """Embeds integer tokens and passes them to an encoder of sequences.

    Attributes:
      vocabulary: number of different tokens, padding included; 257 is all bytes and a padding.
      embedding: width of a token's vector.
      encoder: any encoder of [b time d].

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, text = TextEncoder(vocabulary=30, embedding=4), jnp.array([[7, 2, 9], [5, 0, 0]])
      >>> length = jnp.array([3, 1])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), text, length)
      >>> tokens.values.shape
      (2, 1, 64)
    """

    vocabulary: int = 257
    embedding: int = 32
    encoder: nn.Module = RecurrentEncoder()

    @nn.nowrap
    def check(self, modality: Modality, name: str) -> None:
        """Raises ValueError unless every token of the modality has a vector."""
        if len(modality.vocabulary) > self.vocabulary:
            raise ValueError(
                f"Modality {name!r} has {len(modality.vocabulary)} different tokens, but its "
                f"TextEncoder has vectors for {self.vocabulary}; set vocabulary to "
                f"{len(modality.vocabulary)}."
            )

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps tokens [b time], each in 0..vocabulary-1, to the tokens of `encoder`."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                f"TextEncoder needs integer tokens [b time] but got {x.dtype}{list(x.shape)}; "
                "use RecurrentEncoder or another encoder for inputs that are not text."
            )
        embed = nn.Embed(self.vocabulary, self.embedding, name="embed")
        return self.encoder(embed(x), length, train=train)
