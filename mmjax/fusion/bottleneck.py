"""MBT: modalities exchange information through a few shared tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import (
    check_several_tokens,
    embed_modalities,
    mean_over_present,
    pool,
    stack_presence,
)
from mmjax.kernels.attention import (
    TransformerLayer,
    check_heads_divide_width,
    concatenate_tokens,
)
from mmjax.types import Tokens


class Bottleneck(nn.Module):
    """MBT: modalities have transformers of their own and exchange through a few shared tokens.

    In each fusion layer every modality's layer runs over its own tokens and the shared ones; the
    new shared tokens are the mean of the present modalities' outputs for them. The result is the
    mean, over the present modalities, of their tokens' mean; the paper averages the predictions of
    one class token each.

    Source: Nagrani et al., NeurIPS 2021 (arXiv:2107.00135), section 3.3.

    Attributes:
      width: size of tokens and result.
      bottlenecks: number of shared tokens.
      layers: number of layers.
      separate: number of first layers that run without shared tokens.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = Bottleneck(8, layers=1, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    bottlenecks: int = 4
    layers: int = 2
    separate: int = 0
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        if not 0 <= self.separate < self.layers:
            raise ValueError(
                f"Bottleneck.separate is {self.separate}; it must be 0 to {self.layers - 1}, so "
                f"that some of the {self.layers} layers mix the modalities."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width].

        Raises:
          ValueError: if there are several modalities of one token each, in separate layers.
        """
        if self.separate:
            check_several_tokens(
                self, tokens, "set separate to 0, so that they see the shared tokens."
            )
        x = embed_modalities(tokens, self.width)
        init = nn.initializers.normal(0.02)
        learned = self.param("bottlenecks", init, (self.bottlenecks, self.width))
        shared = jnp.broadcast_to(learned, (next(iter(x.values())).mask.shape[0], *learned.shape))
        shared = shared.astype(next(iter(x.values())).values.dtype)
        for i in range(self.layers):
            x, shared = self.exchange(i, x, shared, train=train)
        vectors, present = [], []
        for m, t in x.items():
            pooled = pool(Tokens(nn.LayerNorm(name=f"norm_{m}")(t.values), t.mask))
            vectors.append(pooled.values)
            present.append(pooled.present)
        return mean_over_present(jnp.stack(vectors), jnp.stack(present))

    def exchange(
        self, i: int, x: dict[str, Tokens], shared: Float[Array, "b k d"], *, train: bool
    ) -> tuple[dict[str, Tokens], Float[Array, "b k d"]]:
        """Applies layer i of every modality."""
        outputs, shared_outputs = {}, []
        for m, t in x.items():
            layer = TransformerLayer(self.heads, dropout=self.dropout, name=f"layer_{i}_{m}")
            if i < self.separate:
                outputs[m] = layer(t, train=train)
                continue
            bottleneck = Tokens(shared, jnp.ones(shared.shape[:2], bool))
            # [z_m'; z_shared_m'] = layer_m([z_m; z_shared]), section 3.3 of the paper.
            values = layer(concatenate_tokens([t, bottleneck]), train=train).values
            n = t.values.shape[1]
            outputs[m] = Tokens(values[:, :n], t.mask)
            shared_outputs.append(values[:, n:])
        if shared_outputs:
            # The shared tokens become the mean of what the modalities made of them.
            shared = mean_over_present(jnp.stack(shared_outputs), stack_presence(x.values()))
        return outputs, shared
