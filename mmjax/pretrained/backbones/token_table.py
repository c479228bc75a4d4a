"""Static word vectors: one vector per token; a text gets their mean."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import check_sequence_shape, make_time_mask, mean_over_time
from mmjax.encoders.text import TextEncoder
from mmjax.pretrained.renaming import Rename
from mmjax.types import Tokens


def token_table(
    vocabulary: int = 32_000, width: int = 256, *, normalize: bool = False
) -> TextEncoder:
    """Makes an encoder of texts by the mean of their tokens' vectors, as in WordLlama.

    Source: https://github.com/dleemiller/WordLlama, whose tables are made of the input embeddings
    of language models. Without the mean, `TextEncoder(vocabulary, width, Features())` returns the
    vectors themselves.

    Args:
      vocabulary: number of different tokens, padding included.
      width: of a token's vector.
      normalize: whether to divide the mean by its Euclidean norm.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, text = token_table(30, 4), jnp.array([[7, 2, 9], [5, 0, 0]])
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), text, jnp.array([3, 1]))
      >>> tokens.values.shape
      (2, 1, 4)
    """
    return TextEncoder(vocabulary, width, MeanPooling(normalize))


class MeanPooling(nn.Module):
    """Computes the mean over time; it has no parameters.

    Attributes:
      normalize: whether to divide the mean by its Euclidean norm.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[[6.0, 0.0], [0.0, 8.0]]])
      >>> print(MeanPooling(normalize=True).apply({}, x, train=False).values)
      [[[0.6 0.8]]]
    """

    normalize: bool = False

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps sequences [b time d] to one token; a sequence of length 0 gives zeros.

        Raises:
          ValueError: if x is not [b time d].
        """
        del train
        check_sequence_shape(x.shape, "MeanPooling")
        mean = mean_over_time(x, make_time_mask(x, length))
        if not self.normalize:
            return as_one_token(mean)
        squares = jnp.square(mean.astype(jnp.float32)).sum(axis=1, keepdims=True)
        # An empty text has norm 0, at which a root has no finite gradient.
        norm = jnp.sqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny))
        return as_one_token((mean / norm).astype(mean.dtype))


def token_table_names() -> tuple[Rename, ...]:
    """Returns the name in files of WordLlama.

    Example:
      >>> [rule.path for rule in token_table_names()]
      ['embed/embedding']
    """
    return (Rename("embedding.weight", "embed/embedding"),)
