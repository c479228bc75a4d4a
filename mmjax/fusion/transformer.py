"""Fusions that mix the tokens of all modalities by attention."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import check_several_tokens, embed_modalities, pool
from mmjax.kernels.attention import (
    TransformerStack,
    check_heads_divide_width,
    concatenate_tokens,
)
from mmjax.types import Tokens


class EarlyTransformer(nn.Module):
    """One transformer over the tokens of all modalities, then their mean.

    Each modality's tokens are projected to one width; the bias identifies the modality.

    Attributes:
      width: size of tokens and result.
      layers: number of layers.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = EarlyTransformer(8, layers=1, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        together = concatenate_tokens(list(embed_modalities(tokens, self.width).values()))
        stack = TransformerStack(self.layers, self.heads, dropout=self.dropout, name="stack")
        return pool(stack(together, train=train)).values


class CrossModal(nn.Module):
    """MulT: every modality attends to each other one; the results attend to themselves.

    Each ordered pair (m, s) has a stack of layers in which the tokens of m attend to those of s.
    Per m, their outputs side by side go through a stack of self-attention, then become their mean;
    the result is the concatenation over m. The paper takes the last token in place of the mean.

    Source: Tsai et al., ACL 2019 (arXiv:1906.00295), section 3.

    Attributes:
      width: size of the tokens in a pair's stack; the result has M (M - 1) width entries, or width
        for one modality.
      layers: number of layers in every stack.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = CrossModal(8, layers=1, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 16)
    """

    width: int
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b d].

        Raises:
          ValueError: if there are several modalities of one token each.
        """
        check_several_tokens(
            self, tokens, "use EarlyTransformer or a fusion of vectors, such as Gated."
        )
        inputs = embed_modalities(tokens, self.width)
        results = []
        for m, x in inputs.items():
            attended = [
                self.stack(f"{m}_from_{s}")(x, context, train=train).values
                for s, context in inputs.items()
                if s != m
            ]
            # With a single modality there is nothing to attend to, so it keeps its own tokens.
            side_by_side = jnp.concatenate(attended or [x.values], axis=-1)
            memory = self.stack(f"memory_{m}")(Tokens(side_by_side, x.mask), train=train)
            results.append(pool(memory).values)
        return jnp.concatenate(results, axis=-1)

    def stack(self, name: str) -> TransformerStack:
        """Makes a stack of layers."""
        return TransformerStack(self.layers, self.heads, dropout=self.dropout, name=name)
