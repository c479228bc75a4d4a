"""Transformer layers as published models have them, and the scan over their stacked parameters.

They differ from `mmjax.kernels.attention` in what released weights fix: biases, the place and the
epsilon of the norms, activations, layer scale. Parameters have Dense kernels [in, out] throughout,
and those of all layers are stacked on a leading axis, so that a deep model compiles as one layer.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.kernels.attention import attend, check_heads_divide_width, dot_general_2d
from mmjax.kernels.gelu import gelu
from mmjax.layers.dropout import DROPOUT_MASK, Dropout

# Norms, softmax and activations cost less than to store what their gradients need, layer by layer.
_KEEP_EXPENSIVE = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_saveable,
    jax.checkpoint_policies.save_only_these_names(DROPOUT_MASK),
)

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"]


def apply_activation(x: Float[Array, "..."], activation: Activation) -> Float[Array, "..."]:
    """Applies an activation by the name that published configurations give it.

    Args:
      x: any array.
      activation: "gelu" is exact; "gelu_tanh" is its approximation by tanh, "quick_gelu" that by a
        sigmoid.

    Raises:
      ValueError: if there is no such activation.

    Example:
      >>> float(apply_activation(jnp.array(-1.0), "relu"))
      0.0
    """
    match activation:
        case "gelu":
            return gelu(x)
        case "gelu_tanh":
            return jax.nn.gelu(x, approximate=True)
        case "quick_gelu":
            return x * jax.nn.sigmoid(1.702 * x)
        case "relu":
            return jax.nn.relu(x)
        case "silu":
            return jax.nn.silu(x)
    raise ValueError(
        f"The activation is {activation!r}; use 'gelu', 'gelu_tanh', 'quick_gelu', 'relu' or "
        "'silu'."
    )


class SelfAttention(nn.Module):
    """Multi-head self-attention with biases; softmax in float32.

    Source: Vaswani et al., NeurIPS 2017 (arXiv:1706.03762), section 3.2.

    Attributes:
      heads: number of heads; it divides the width.
      key_bias: whether the keys have a bias. It changes no result, but most released weights have
        one.

    Example:
      >>> attention, x = SelfAttention(heads=2), jnp.zeros((3, 5, 8))
      >>> y, _ = jax.eval_shape(attention.init_with_output, jax.random.key(0), x)
      >>> y.shape
      (3, 5, 8)
    """

    heads: int
    key_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b 1 #n n"] | None = None
    ) -> Float[Array, "b n d"]:
        """Maps tokens [b n d] to [b n d].

        Args:
          x: the tokens.
          mask: [batch, 1, query, key], True where a query may attend to a key; None: everywhere.

        Raises:
          ValueError: if the heads do not divide the width.
        """
        b, n, d = x.shape
        check_heads_divide_width(d, self.heads)

        def project(name: str, values: Array, use_bias: bool = True) -> Array:
            return nn.Dense(d, use_bias=use_bias, dot_general=dot_general_2d, name=name)(values)

        def split_heads(values: Array) -> Array:
            return values.reshape(b, n, self.heads, d // self.heads)

        attended = attend(
            split_heads(project("query", x)),
            split_heads(project("key", x, self.key_bias)),
            split_heads(project("value", x)),
            mask,
        )
        return project("out", attended.reshape(b, n, d))


class TransformerBlock(nn.Module):
    """One layer: self-attention and an MLP, each with a norm and a residual connection.

    Attributes:
      heads: number of attention heads.
      hidden: width of the MLP's hidden layer.
      activation: that of the MLP.
      epsilon: of the layer norms.
      dropout: rate on what attention and MLP add, while training.
      norm: "pre": x + f(norm(x)); "post": norm(x + f(x)).
      gated: whether the MLP is SwiGLU: silu(a) * b of two hidden layers a and b, without
        `activation` (Shazeer, 2020, arXiv:2002.05202).
      layer_scale: whether what attention and MLP add is scaled per channel (Touvron et al., ICCV
        2021, arXiv:2103.17239).
      key_bias: as in `SelfAttention`.

    Example:
      >>> import functools
      >>> block, x = TransformerBlock(heads=2, hidden=16), jnp.zeros((3, 5, 8))
      >>> call = functools.partial(block.init_with_output, train=False)
      >>> jax.eval_shape(call, jax.random.key(0), x)[0].shape
      (3, 5, 8)
    """

    heads: int
    hidden: int
    activation: Activation = "gelu"
    epsilon: float = 1e-6
    dropout: float = 0.0
    norm: Literal["pre", "post"] = "pre"
    gated: bool = False
    layer_scale: bool = False
    key_bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        mask: Bool[Array, "#b 1 #n n"] | None = None,
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        """Maps tokens [b n d] to [b n d]; the mask is that of `SelfAttention`."""
        attention = SelfAttention(self.heads, self.key_bias, name="attention")
        for name, function in (
            ("attention", lambda values: attention(values, mask)),
            ("mlp", self._apply_mlp),
        ):
            norm = make_layer_norm(self.epsilon, f"norm_{name}")
            y = function(norm(x) if self.norm == "pre" else x)
            if self.layer_scale:
                scale = self.param(f"scale_{name}", nn.initializers.ones, x.shape[-1:])
                y = y * scale.astype(y.dtype)[None, None]
            x = x + Dropout(self.dropout)(y, train=train)
            x = norm(x) if self.norm == "post" else x
        return x

    def _apply_mlp(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        return apply_mlp(x, self.hidden, self.activation, gated=self.gated)


def apply_mlp(
    x: Float[Array, "... d"], hidden: int, activation: Activation, *, gated: bool = False
) -> Float[Array, "... d"]:
    """Applies an MLP whose layers, `mlp_in` and `mlp_out`, belong to the calling module."""
    width = 2 * hidden if gated else hidden
    y = nn.Dense(width, dot_general=dot_general_2d, name="mlp_in")(x)
    if gated:
        gate, value = jnp.split(y, 2, axis=-1)
        y = jax.nn.silu(gate) * value
    else:
        y = apply_activation(y, activation)
    return nn.Dense(x.shape[-1], dot_general=dot_general_2d, name="mlp_out")(y)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless an attribute has one of its values."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; use {', '.join(map(repr, choices))}.")


def make_layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """Makes a layer norm that computes the variance from the centered values, as PyTorch does."""
    return nn.LayerNorm(epsilon, use_fast_variance=False, name=name)


def scan_layers(
    layer: nn.Module, layers: int, x: Any, mask: Any = None, *, remat: bool, train: bool
) -> Any:
    """Applies `layers` layers with parameters of their own, stacked on a leading axis.

    Args:
      layer: maps (x, mask, *, train) to the next x; a child of the calling module.
      layers: number of layers.
      x: the tokens.
      mask: the same for every layer.
      remat: whether the backward pass recomputes each layer, to save memory. Else it recomputes
        what is cheap: all but products and random numbers.
      train: whether dropout is active; every layer has random numbers of its own.
    """

    def apply_layer(layer: nn.Module, x: Any, mask: Any) -> tuple[Any, None]:
        return layer(x, mask, train=train), None

    if train:
        policy = None if remat else _KEEP_EXPENSIVE
        # A scan keeps forward and backward apart, so nothing can be merged that was to be redone.
        apply_layer = nn.remat(apply_layer, prevent_cse=False, policy=policy)
    scan = nn.scan(
        apply_layer,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=layers,
    )
    return scan(layer, x, mask)[0]
