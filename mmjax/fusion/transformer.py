"""Fusions that mix the tokens of all modalities by attention."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import mean_over_present, pool
from mmjax.kernels.attention import (
    TransformerLayer,
    TransformerStack,
    check_heads_divide_width,
    concatenate_tokens,
    dot_general_2d,
    zero_masked_tokens,
)
from mmjax.types import Tokens


class EarlyTransformer(nn.Module):
    """One transformer over the tokens of all modalities, then their mean.

    Each modality's tokens are projected to one width; the bias says which modality they are of.

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
        together = concatenate_tokens(list(_embed_modalities(tokens, self.width).values()))
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
        _check_several_tokens(
            self, tokens, "use EarlyTransformer or a fusion of vectors, such as Gated."
        )
        inputs = _embed_modalities(tokens, self.width)
        results = []
        for m, x in inputs.items():
            attended = [
                self.stack(f"{m}_from_{s}")(x, context, train=train).values
                for s, context in inputs.items()
                if s != m
            ]
            side_by_side = jnp.concatenate(attended or [x.values], axis=-1)
            memory = self.stack(f"memory_{m}")(Tokens(side_by_side, x.mask), train=train)
            results.append(pool(memory).values)
        return jnp.concatenate(results, axis=-1)

    def stack(self, name: str) -> TransformerStack:
        """Makes a stack of layers."""
        return TransformerStack(self.layers, self.heads, dropout=self.dropout, name=name)


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
            _check_several_tokens(
                self, tokens, "set separate to 0, so that they see the shared tokens."
            )
        x = _embed_modalities(tokens, self.width)
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
            values = layer(concatenate_tokens([t, bottleneck]), train=train).values
            n = t.values.shape[1]
            outputs[m] = Tokens(values[:, :n], t.mask)
            shared_outputs.append(values[:, n:])
        if shared_outputs:
            present = jnp.stack([t.mask.any(axis=1) for t in x.values()])
            shared = mean_over_present(jnp.stack(shared_outputs), present)
        return outputs, shared


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
        context = concatenate_tokens(list(_embed_modalities(tokens, self.width).values()))
        learned = self.param("latents", nn.initializers.normal(1.0), (self.latents, self.width))
        size = context.mask.shape[0]
        values = jnp.broadcast_to(learned, (size, *learned.shape)).astype(context.values.dtype)
        x = Tokens(values, jnp.ones((size, self.latents), bool))
        for i in range(self.rounds):
            cross = TransformerLayer(self.heads, dropout=self.dropout, name=f"look_{i}")
            latent = TransformerStack(
                self.layers, self.heads, dropout=self.dropout, name=f"think_{i}"
            )
            x = latent(cross(x, context, train=train), train=train)
        return jnp.where(context.mask.any(axis=1)[:, None], pool(x).values, 0)


def _embed_modalities(tokens: dict[str, Tokens], width: int) -> dict[str, Tokens]:
    """Projects each modality's tokens to one width, in the order of the names.

    The projection's bias says which modality a token is of. For a compact method.
    """
    dense = functools.partial(nn.Dense, width, dot_general=dot_general_2d)
    # Masked before the projection, since NaN times 0 in its gradient would be NaN.
    return {
        m: Tokens(dense(name=f"project_{m}")(zero_masked_tokens(tokens[m]).values), tokens[m].mask)
        for m in sorted(tokens)
    }


def _check_several_tokens(fusion: nn.Module, tokens: dict[str, Tokens], alternative: str) -> None:
    """Raises ValueError if there are several modalities of one token each.

    Attention to a single token learns no queries and keys.
    """
    if len(tokens) > 1 and all(t.mask.shape[1] == 1 for t in tokens.values()):
        raise ValueError(
            f"{type(fusion).__name__} has attention to the tokens of one modality, but every "
            "encoder returns one token, so there is nothing to choose from; let an encoder return "
            f"several, as by output='all', or {alternative}"
        )
