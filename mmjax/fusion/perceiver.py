"""Perceiver and HEALNet: learned latent vectors that attend to the tokens of the modalities."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import embed_modalities, pool
from mmjax.kernels.attention import (
    Attention,
    TransformerLayer,
    TransformerStack,
    check_heads_divide_width,
    concatenate_tokens,
    dot_general_2d,
)
from mmjax.types import Tokens


class Perceiver(nn.Module):
    """Learned latent vectors attend to all tokens, then to themselves, a few times; their mean.

    Source: Jaegle et al., ICML 2021 (arXiv:2103.03206), with weights that are not shared between
    the rounds.

    Attributes:
      width: size of latents, tokens and result.
      latents: number of latent vectors.
      rounds: number of times that the latents attend to the tokens.
      layers: number of self-attention layers after each of these.
      heads: number of attention heads.
      dropout: rate within the layers, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = Perceiver(8, latents=3, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    latents: int = 8
    rounds: int = 1
    layers: int = 1
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; zeros if no modality is present."""
        context = concatenate_tokens(list(embed_modalities(tokens, self.width).values()))
        learned = self.param("latents", nn.initializers.normal(1.0), (self.latents, self.width))
        x = _repeat_latents(learned, context)
        for i in range(self.rounds):
            # The cost of attention to n tokens is latents times n, not n^2.
            cross = TransformerLayer(self.heads, dropout=self.dropout, name=f"look_{i}")
            latent = TransformerStack(
                self.layers, self.heads, dropout=self.dropout, name=f"think_{i}"
            )
            x = latent(cross(x, context, train=train), train=train)
        # The latents exist without any input, so that an empty example needs zeros explicitly.
        return jnp.where(context.mask.any(axis=1)[:, None], pool(x).values, 0)


class HEALNet(nn.Module):
    """HEALNet: latents attend to one present modality after the other, several times; their mean.

    S' = S + attention_m(norm S, norm X_m) and S'' = S' + V selu(U norm S'), in the order of the
    names, from learned latents S. A missing modality leaves the latents as they are. Every
    modality has an attention of its own; the self-normalizing network (U, V) is one for all. All
    layers share their weights, so that their number does not change that of the parameters.
    Positions in X_m are the encoders' part. Without any modality the result is that of the learned
    latents.

    Source: Hemker, Simidjievski, Jamnik, NeurIPS 2024 (arXiv:2311.09115), figure 1 and equation
    (3). The authors' code also has self-attention between the latents, a temperature of 0.5 in the
    softmax and, by default, layers with weights of their own; unless `verbose` is set, the
    self-attention updates the latents for a missing modality, too.

    Attributes:
      width: size of latents, tokens and result.
      latents: number of latent vectors.
      layers: number of times that the latents attend to every modality.
      heads: number of attention heads.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = HEALNet(8, latents=3, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    latents: int = 8
    layers: int = 3
    heads: int = 4

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        contexts = {}
        for m, x in embed_modalities(tokens, self.width).items():
            contexts[m] = Tokens(nn.LayerNorm(name=f"norm_{m}")(x.values), x.mask)
        learned = self.param("latents", nn.initializers.normal(1.0), (self.latents, self.width))
        state = _repeat_latents(learned, next(iter(contexts.values()))).values
        # Modules are made once, since every layer calls the same ones.
        attend = {m: Attention(self.heads, name=f"attention_{m}") for m in contexts}
        norms = {m: nn.LayerNorm(name=f"norm_queries_{m}") for m in contexts}
        normalize, network = nn.LayerNorm(name="norm_network"), _SelfNormalizing(name="network")
        for _ in range(self.layers):
            for m, context in contexts.items():
                attended = state + attend[m](norms[m](state), context)
                updated = attended + network(normalize(attended))
                state = jnp.where(context.mask.any(axis=1)[:, None, None], updated, state)
        return nn.LayerNorm(name="norm")(state.mean(axis=1))


class _SelfNormalizing(nn.Module):
    """Dense, SELU, Dense: V selu(U x), four times as wide inside.

    Source: Klambauer et al., NeurIPS 2017 (arXiv:1706.02515): with the initial weights of `Dense`,
    whose variance is 1 / inputs, SELU keeps mean 0 and variance 1.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        hidden = nn.Dense(4 * x.shape[-1], dot_general=dot_general_2d, name="dense_in")(x)
        y: Array = nn.Dense(x.shape[-1], dot_general=dot_general_2d, name="dense_out")(
            nn.selu(hidden)
        )
        return y


def _repeat_latents(learned: Float[Array, "l d"], context: Tokens) -> Tokens:
    """Repeats the latents per example of the context, in its type."""
    size = context.mask.shape[0]
    values = jnp.broadcast_to(learned, (size, *learned.shape)).astype(context.values.dtype)
    return Tokens(values, jnp.ones((size, len(learned)), bool))
