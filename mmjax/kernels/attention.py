"""Multi-head attention with masked tokens, and the pre-norm transformer layer that uses it."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.portable import choose_by_platform
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class Attention(nn.Module):
    """Multi-head scaled dot-product attention: softmax(Q Kᵀ / √d_h) V per head, then a projection.

    The output of a query that cannot attend to any token is 0. The projections have no biases; a
    bias of the keys would not change the output.

    Source: Vaswani et al., NeurIPS 2017 (arXiv:1706.03762), section 3.2.

    Attributes:
      heads: number of heads; it divides the width of the queries.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> queries = jnp.zeros((2, 3, 8))
      >>> context = Tokens(jnp.zeros((2, 5, 4)), jnp.ones((2, 5), bool))
      >>> attention = Attention(heads=2)
      >>> y, _ = jax.eval_shape(attention.init_with_output, jax.random.key(0), queries, context)
      >>> y.shape
      (2, 3, 8)
    """

    heads: int

    @nn.compact
    def __call__(self, queries: Float[Array, "b q d"], context: Tokens) -> Float[Array, "b q d"]:
        """Maps queries [b q d] and the context's tokens [b n e] to [b q d].

        Raises:
          ValueError: if the heads do not divide the width.
        """
        check_heads_divide_width(queries.shape[-1], self.heads)
        attend = nn.MultiHeadDotProductAttention(
            self.heads,
            use_bias=False,
            force_fp32_for_softmax=True,
            qkv_dot_general=dot_general_2d,
            out_dot_general=dot_general_2d,
            name="heads",
        )
        y = attend(queries, context.values, mask=context.mask[:, None, None, :])
        # A softmax over no token is uniform over all of them; the result must not show it.
        has_context = context.mask.any(axis=1)[:, None, None]
        return jnp.where(has_context, y, 0).astype(queries.dtype)


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: x + attention(norm(x)), then x + mlp(norm(x)).

    Source: Xiong et al., ICML 2020 (arXiv:2002.04745), on the place of the norms.

    Attributes:
      heads: number of attention heads.
      expansion: width of the MLP's hidden layer, in multiples of the tokens' width.
      dropout: rate on what attention and MLP add, while training.
    """

    heads: int
    expansion: int = 4
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Tokens, context: Tokens | None = None, *, train: bool) -> Tokens:
        """Maps tokens [b n d] to [b n d]; they attend to `context` [b k e], or to themselves."""
        drop = functools.partial(Dropout(self.dropout), train=train)
        queries = nn.LayerNorm(name="norm_queries")(x.values)
        if context is None:
            context = Tokens(queries, x.mask)
        else:
            normed = nn.LayerNorm(name="norm_context")(context.values)
            context = Tokens(normed, context.mask)
        values = x.values + drop(Attention(self.heads, name="attention")(queries, context))
        dense = functools.partial(nn.Dense, dot_general=dot_general_2d)
        hidden = dense(self.expansion * values.shape[-1], name="mlp_in")(
            nn.LayerNorm(name="norm_mlp")(values)
        )
        values = values + drop(dense(values.shape[-1], name="mlp_out")(nn.gelu(hidden)))
        return Tokens(values, x.mask)


class TransformerStack(nn.Module):
    """Several transformer layers, and a norm at the end.

    Attributes:
      layers: number of layers.
      heads: as in `TransformerLayer`.
      expansion: as in `TransformerLayer`.
      dropout: as in `TransformerLayer`.
    """

    layers: int
    heads: int
    expansion: int = 4
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Tokens, context: Tokens | None = None, *, train: bool) -> Tokens:
        """Maps tokens [b n d] to [b n d]; every layer attends to the same `context`, if any."""
        for i in range(self.layers):
            layer = TransformerLayer(self.heads, self.expansion, self.dropout, name=f"layer_{i}")
            x = layer(x, context, train=train)
        return Tokens(nn.LayerNorm(name="norm")(x.values), x.mask)


def attend(
    queries: Float[Array, "b q h d"],
    keys: Float[Array, "b k h d"],
    values: Float[Array, "b k h d"],
    mask: Bool[Array, "#b 1 #q k"] | None = None,
) -> Float[Array, "b q h d"]:
    """Computes softmax(Q Kᵀ / √d) V per head; the softmax in float32.

    The sum of the weights divides the result instead of the weights, so that no gradient needs the
    sums over a row of weights times their gradients.

    Args:
      queries: [batch, query, head, width].
      keys: [batch, key, head, width].
      values: [batch, key, head, width].
      mask: [batch, 1, query, key], True where a query may attend to a key; None: everywhere. A
        query that may attend to no key gets the mean of all values.

    Example:
      >>> x = jnp.arange(6.0).reshape(1, 3, 1, 2)
      >>> attend(x, jnp.zeros_like(x), x)[0, 0].tolist()  # the mean over the tokens
      [[2.0, 3.0]]
    """
    # One copy of each instead of the several that products in the other order of axes need.
    queries, keys, values = (x.swapaxes(1, 2) for x in (queries, keys, values))
    # The products with `preferred_element_type` sum in float32, whatever the inputs are.
    logits = jnp.einsum("bhqd,bhkd->bhqk", queries, keys, preferred_element_type=jnp.float32)
    logits *= queries.shape[-1] ** -0.5
    if mask is not None:
        # Finite, so that a row without any key has a maximum to subtract.
        logits = jnp.where(mask, logits, 0.5 * jnp.finfo(logits.dtype).min)
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    weights = jnp.exp(logits - largest)
    y = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(values.dtype), values)
    return (y / weights.sum(axis=-1, keepdims=True)).astype(values.dtype).swapaxes(1, 2)


def dot_general_2d(
    x: Float[Array, "..."], kernel: Float[Array, "..."], axes: Any, **options: Any
) -> Array:
    """Computes `jax.lax.dot_general` of x's last and the kernel's first axes as a matrix product.

    All other axes of x become one. A product's gradient by the kernel sums over them, and where
    they are several, XLA's CPU compiler first copies its operands into another order. The plain
    version is `jax.lax.dot_general`.

    Args:
      x: [... k...].
      kernel: [k... n...].
      axes: dimension numbers: ((axes of x, axes of the kernel), ((), ())).
      options: those of `jax.lax.dot_general`.

    Returns:
      [... n...].
    """
    (contracted, _), _ = axes
    # A product of two matrices is faster on CPU than one with several axes on either side.
    outer, inner = x.shape[: -len(contracted)], math.prod(kernel.shape[: len(contracted)])
    matrix = kernel.reshape(inner, -1)
    if inner > matrix.shape[1]:
        matrix = _transpose_gradient(matrix)
    y = jax.lax.dot_general(x.reshape(-1, inner), matrix, (((1,), (0,)), ((), ())), **options)
    return y.reshape(*outer, *kernel.shape[len(contracted) :])


@jax.custom_jvp
def _transpose_gradient(kernel: Float[Array, "k n"]) -> Float[Array, "k n"]:
    """Returns the kernel; on CPU its gradient is computed as the transpose of a product [n k].

    XLA's products [k n] of transposed operands reach 0.6 to 0.8 of the speed if k is larger than n.
    """
    return kernel


@_transpose_gradient.defjvp
def _transpose_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    def transpose_twice(tangent: Array) -> Array:
        # The barrier keeps XLA from merging the gradient's product with the transposition.
        return jax.lax.optimization_barrier(tangent.T).T

    def return_same(tangent: Array) -> Array:
        return tangent

    return primals[0], choose_by_platform(tangents[0], cpu=transpose_twice, plain=return_same)


def sinusoidal_positions(count: int, width: int) -> Float[Array, "{count} {width}"]:
    """Computes sines and cosines of the position, with wavelengths from 2 pi to 20000 pi.

    Source: Vaswani et al., NeurIPS 2017, section 3.5, with all sines before all cosines.
    """
    half = (width + 1) // 2
    # Wavelengths grow geometrically from 2 pi toward 10000 * 2 pi; sines first, then cosines.
    rates = 10000.0 ** (-jnp.arange(half) / half)
    angles = jnp.arange(count)[:, None] * rates[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)[:, :width]


def check_heads_divide_width(width: int, heads: int) -> None:
    """Raises ValueError unless the heads divide the width."""
    if width % heads:
        raise ValueError(
            f"A width of {width} cannot be shared by {heads} attention heads; "
            "choose a number that divides it."
        )


def zero_masked_tokens(tokens: Tokens) -> Tokens:
    """Returns the tokens with zeros under the mask, where the values may be NaN."""
    return Tokens(jnp.where(tokens.mask[:, :, None], tokens.values, 0), tokens.mask)


def concatenate_tokens(parts: list[Tokens]) -> Tokens:
    """Concatenates tokens [b n_i d] to [b (sum of n_i) d]."""
    return Tokens(
        jnp.concatenate([p.values for p in parts], axis=1),
        jnp.concatenate([p.mask for p in parts], axis=1),
    )
