"""A multi-layer perceptron of Maxout units."""

import flax.linen as nn
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import as_one_token, to_float
from mmjax.kernels.max import max_over_axis
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class MaxoutEncoder(nn.Module):
    """Layers h_j = max_k (W_jk x + b_jk) on everything after the batch axis, flattened.

    Source: Goodfellow et al., ICML 2013 (arXiv:1302.4389).

    Attributes:
      features: width of each layer.
      pieces: number of Dense layers, k, of which each layer takes the maximum.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, x = MaxoutEncoder((8,), pieces=3), jnp.zeros((2, 5))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)
    """

    features: tuple[int, ...] = (128,)
    pieces: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.features or self.pieces < 1:
            raise ValueError(
                f"MaxoutEncoder has features {self.features} and {self.pieces} pieces; "
                "give it at least one of each."
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b ...] to one token [b 1 features[-1]]; `length` has no effect."""
        del length
        x = to_float(x).reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            # h_i = max_k (x^T W_ik + b_ik) over the pieces k of each output i.
            x = max_over_axis(nn.DenseGeneral((self.pieces, width), name=f"pieces_{i}")(x), axis=1)
            x = Dropout(self.dropout)(x, train=train)
        return as_one_token(x)
