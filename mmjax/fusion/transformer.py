"""Fusions that mix the tokens of all modalities by attention."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import mean_of_present, pool
from mmjax.kernels.attention import Layer, Stack, check_heads, dot_rows, joined, masked
from mmjax.types import Tokens


class EarlyTransformer(nn.Module):
    """One transformer over the tokens of all modalities, then their mean.

    Each modality's tokens are projected to one width and get a learned vector that says which
    modality they are of.

    Attributes:
      width: size of tokens and result.
      layers: number of layers.
      heads: number of attention heads.
      dropout: rate within the layers, while training.
    """

    width: int
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]."""
        together = joined(list(embedded(tokens, self.width).values()))
        stack = Stack(self.layers, self.heads, dropout=self.dropout, name="stack")
        return pool(stack(together, train=train)).values


class CrossModal(nn.Module):
    """MulT: every modality attends to each other one; the results attend to themselves.

    For each ordered pair (m, s) a stack of layers in which the tokens of m attend to those of s;
    for each m, the results side by side through a stack of self-attention, then their mean; the
    result is the concatenation over m. The paper takes the last token in place of the mean.

    Source: Tsai et al., ACL 2019 (arXiv:1906.00295), section 3.

    Attributes:
      width: size of the tokens in a pair's stack; the result has M (M - 1) width entries, or width
        for one modality.
      layers: number of layers in every stack.
      heads: number of attention heads.
      dropout: rate within the layers, while training.
    """

    width: int
    layers: int = 2
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b d].

        Raises:
          ValueError: if there are several modalities of one token each.
        """
        check_several(self, tokens, "use EarlyTransformer or a fusion of vectors, such as Gated.")
        inputs = embedded(tokens, self.width)
        results = []
        for m, x in inputs.items():
            found = [
                self.stack(f"{m}_from_{s}")(x, context, train=train)
                for s, context in inputs.items()
                if s != m
            ] or [x]
            together = Tokens(jnp.concatenate([f.values for f in found], axis=-1), x.mask)
            results.append(pool(self.stack(f"memory_{m}")(together, train=train)).values)
        return jnp.concatenate(results, axis=-1)

    def stack(self, name: str) -> Stack:
        """A stack of layers."""
        return Stack(self.layers, self.heads, dropout=self.dropout, name=name)


class Bottleneck(nn.Module):
    """MBT: modalities have transformers of their own and exchange through a few shared tokens.

    In each fusion layer every modality's layer runs over its own tokens and the shared ones; the
    new shared tokens are the mean of what the modalities that are present made of them. The result
    is the mean, over the modalities present, of their tokens' mean; the paper averages the
    predictions of one class token each.

    Source: Nagrani et al., NeurIPS 2021 (arXiv:2107.00135), section 3.3.

    Attributes:
      width: size of tokens and result.
      bottlenecks: number of shared tokens.
      layers: number of layers.
      separate: how many of them, the first ones, run without shared tokens.
      heads: number of attention heads.
      dropout: rate within the layers, while training.
    """

    width: int
    bottlenecks: int = 4
    layers: int = 2
    separate: int = 0
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        if not 0 <= self.separate < self.layers:
            raise ValueError(
                f"Bottleneck.separate is {self.separate}; it must be 0 to {self.layers - 1}, so "
                f"that some of the {self.layers} layers mix the modalities."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width].

        Raises:
          ValueError: if there are several modalities of one token each, in separate layers.
        """
        if self.separate:
            check_several(self, tokens, "set separate to 0, so that they see the shared tokens.")
        x = embedded(tokens, self.width)
        init = nn.initializers.normal(0.02)
        learned = self.param("bottlenecks", init, (self.bottlenecks, self.width))
        shared = jnp.broadcast_to(learned, (len(next(iter(x.values())).mask), *learned.shape))
        shared = shared.astype(next(iter(x.values())).values.dtype)
        for i in range(self.layers):
            x, shared = self.exchange(i, x, shared, train=train)
        vectors = {
            m: pool(Tokens(nn.LayerNorm(name=f"norm_{m}")(t.values), t.mask)) for m, t in x.items()
        }
        return mean_of_present(
            jnp.stack([v.values for v in vectors.values()]),
            jnp.stack([v.present for v in vectors.values()]),
        )

    def exchange(
        self, i: int, x: dict[str, Tokens], shared: Float[Array, "b k d"], *, train: bool
    ) -> tuple[dict[str, Tokens], Float[Array, "b k d"]]:
        """Layer i of every modality."""
        found, made = {}, []
        for m, t in x.items():
            layer = Layer(self.heads, dropout=self.dropout, name=f"layer_{i}_{m}")
            if i < self.separate:
                found[m] = layer(t, train=train)
                continue
            there = jnp.ones(shared.shape[:2], bool)
            out = layer(joined([t, Tokens(shared, there)]), train=train).values
            n = t.values.shape[1]
            found[m] = Tokens(out[:, :n], t.mask)
            made.append(out[:, n:])
        if made:
            present = jnp.stack([t.mask.any(axis=1) for t in x.values()])
            shared = mean_of_present(jnp.stack(made), present)
        return found, shared


class Perceiver(nn.Module):
    """Learned latent vectors attend to all tokens, then to themselves, a few times; their mean.

    Source: Jaegle et al., ICML 2021 (arXiv:2103.03206), with weights that are not shared between
    the rounds.

    Attributes:
      width: size of latents, tokens and result.
      latents: number of latent vectors.
      rounds: how often they look at the tokens.
      layers: self-attention layers after each look.
      heads: number of attention heads.
      dropout: rate within the layers, while training.
    """

    width: int
    latents: int = 8
    rounds: int = 1
    layers: int = 1
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """{m: [b n d_m]} to [b width]; zeros where no modality is present."""
        context = joined(list(embedded(tokens, self.width).values()))
        learned = self.param("latents", nn.initializers.normal(1.0), (self.latents, self.width))
        size = len(context.mask)
        values = jnp.broadcast_to(learned, (size, *learned.shape)).astype(context.values.dtype)
        x = Tokens(values, jnp.ones((size, self.latents), bool))
        for i in range(self.rounds):
            look = Layer(self.heads, dropout=self.dropout, name=f"look_{i}")
            think = Stack(self.layers, self.heads, dropout=self.dropout, name=f"think_{i}")
            x = think(look(x, context, train=train), train=train)
        return jnp.where(context.mask.any(axis=1)[:, None], pool(x).values, 0)


def embedded(tokens: dict[str, Tokens], width: int) -> dict[str, Tokens]:
    """Each modality's tokens projected to one width, in the order of the names.

    The projection's bias says which modality a token is of. For a compact method.
    """
    dense = functools.partial(nn.Dense, width, dot_general=dot_rows)
    return {
        m: Tokens(dense(name=f"project_{m}")(masked(tokens[m]).values), tokens[m].mask)
        for m in sorted(tokens)
    }


def check_several(fusion: nn.Module, tokens: dict[str, Tokens], mend: str) -> None:
    """Refuses modalities of one token each: attention to one token learns no queries and keys.

    A modality on its own passes, since there is nothing to fuse.
    """
    if len(tokens) > 1 and all(t.mask.shape[1] == 1 for t in tokens.values()):
        raise ValueError(
            f"{type(fusion).__name__} has attention to the tokens of one modality, but every "
            "encoder returns one token, so there is nothing to choose from; let an encoder return "
            f"several, as by output='all', or {mend}"
        )
