"""An encoder of numeric features by sines and cosines of learned frequencies."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import MLPEncoder
from mmjax.encoders.per_feature import PerFeatureDense, check_vectors
from mmjax.types import Tokens


class PeriodicEncoder(nn.Module):
    """Embeds every number x as ReLU(W [sin 2πcx, cos 2πcx] + v) with weights of its feature.

    The frequencies c are learned, per feature. The numbers should be standardized, as those of a
    data set are by default.

    Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning",
    NeurIPS 2022 (arXiv:2203.05556), section 3.3 ("PLR").

    Attributes:
      frequencies: number of frequencies per feature.
      scale: standard deviation of the initial frequencies; the most important setting, which the
        authors tune between 0.01 and 100.
      width: of the embedding of a feature.
      encoder: gets the embeddings [b d width]; `Features()` makes each a token of the model.

    Example:
      >>> import functools, jax
      >>> encoder, x = PeriodicEncoder(width=4, encoder=MLPEncoder((8,))), jnp.zeros((2, 3))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 8)
    """

    frequencies: int = 48
    scale: float = 0.1
    width: int = 24
    encoder: nn.Module = MLPEncoder()

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps vectors [b d] to the tokens of `encoder`."""
        x = check_vectors(x, "PeriodicEncoder")
        init = nn.initializers.normal(self.scale)
        c = self.param("frequencies", init, (x.shape[1], self.frequencies)).astype(x.dtype)
        # v = 2 pi c x per frequency c of each feature; the embedding is [sin v, cos v].
        angles = 2 * jnp.pi * c[None] * x[:, :, None]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=2)
        embedded = nn.relu(PerFeatureDense(self.width, name="embed")(waves))
        return self.encoder(embedded, None, train=train)
