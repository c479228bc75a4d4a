"""A multi-layer perceptron over the flattened array; conversions that other encoders share."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens


class MLPEncoder(nn.Module):
    """Flattens everything after the batch axis, then applies Dense + ReLU per width.

    Attributes:
      features: width of each layer.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> encoder, images = MLPEncoder((16, 8)), jnp.zeros((2, 28, 28, 1), jnp.uint8)
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), images)
      >>> tokens.values.shape
      (2, 1, 8)
    """

    features: tuple[int, ...] = (128,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError("MLPEncoder.features is empty; give it at least one width.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps [b ...] to one token [b 1 features[-1]]; `length` has no effect."""
        del length
        x = to_float(x).reshape(x.shape[0], -1)
        for width in self.features:
            x = nn.relu(nn.Dense(width)(x))
            x = Dropout(self.dropout)(x, train=train)
        return as_one_token(x)


def as_one_token(x: Float[Array, "b d"]) -> Tokens:
    """Returns one vector per example as tokens: n = 1, none masked."""
    return Tokens(x[:, None, :], jnp.ones((x.shape[0], 1), dtype=bool))


def to_float(x: Num[Array, "..."]) -> Float[Array, "..."]:
    """Brings uint8 and uint16 pixels to [0, 1]; floats pass, other integers are only cast.

    Example:
      >>> import jax.numpy as jnp
      >>> to_float(jnp.array([0, 255], jnp.uint8))
      Array([0., 1.], dtype=float32)
    """
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    # Only these count as pixels: other integers may be ids or counts.
    scale = {jnp.dtype(jnp.uint8): 255.0, jnp.dtype(jnp.uint16): 65535.0}.get(x.dtype, 1.0)
    return x.astype(jnp.float32) / scale
