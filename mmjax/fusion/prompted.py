"""A transformer that is prompted by the pattern of the modalities that an example has."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import embed_modalities, encode_patterns, pool, stack_presence
from mmjax.kernels.attention import (
    TransformerLayer,
    check_heads_divide_width,
    concatenate_tokens,
)
from mmjax.types import Tokens


class Prompted(nn.Module):
    """Missing-aware prompts: `EarlyTransformer` with learned tokens per pattern in every layer.

    Each of the first layers appends the prompts of the example's pattern to its tokens, where they
    stay for the layers after it (the paper's input-level prompts, for 2^M patterns instead of
    those of two modalities). The result is the mean of the modalities' tokens, without prompts; the
    paper takes the first token. The paper freezes all but prompts and head, as
    `Experiment.trainable=("fusion/prompts_*", "heads_*")` does. A pattern that does not occur in
    training keeps its random prompts.

    Source: Lee et al., "Multimodal prompting with missing modalities for visual recognition", CVPR
    2023 (arXiv:2303.03369), section 3.

    Attributes:
      width: size of tokens and result.
      prompts: number of prompts per layer and pattern.
      layers: number of layers.
      prompted_layers: how many of the first layers append prompts; None is all.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = Prompted(8, prompts=2, layers=1, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    prompts: int = 4
    layers: int = 2
    prompted_layers: int | None = None
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; zeros if no modality is present."""
        embedded = embed_modalities(tokens, self.width)
        pattern, count = encode_patterns(stack_presence(embedded.values()))
        x = concatenate_tokens(list(embedded.values()))
        size = x.mask.shape[1]
        last = self.layers if self.prompted_layers is None else self.prompted_layers
        for i in range(self.layers):
            if i < last:
                shape = (count, self.prompts, self.width)
                table = self.param(f"prompts_{i}", nn.initializers.normal(0.02), shape)
                prompts = table[pattern].astype(x.values.dtype)
                x = concatenate_tokens([x, Tokens(prompts, jnp.ones(prompts.shape[:2], bool))])
            x = TransformerLayer(self.heads, dropout=self.dropout, name=f"layer_{i}")(
                x, train=train
            )
        values = nn.LayerNorm(name="norm")(x.values[:, :size])
        return pool(Tokens(values, x.mask[:, :size])).values
