"""A piecewise-linear encoder of numeric features."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from mmjax.encoders.mlp import MLPEncoder
from mmjax.encoders.per_feature import PerFeatureDense, check_vectors
from mmjax.types import Tokens

_CLOSEST = 1e-6  # edges of one feature that are closer, against its spread, are one edge


class PiecewiseLinearEncoder(nn.Module):
    """Embeds every number as ReLU(W e + v), where e is the share of each bin below the number.

    A bin that lies below the number is 1 in e, one above it 0, and the bin that holds it the share
    that it has passed. Below the first edge and above the last one, e continues linearly. The edges
    are quantiles of the training split, which an `Experiment` computes if they are not given.

    Source: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning",
    NeurIPS 2022 (arXiv:2203.05556), sections 3.1 and 3.2.

    Attributes:
      bins: largest number of bins of a feature.
      edges: per feature its edges, increasing; None lets an `Experiment` compute them.
      width: of the embedding of a feature.
      encoder: gets the embeddings [b d width]; `Features()` makes each a token of the model.

    Example:
      >>> import functools, jax
      >>> edges = compute_bin_edges(np.linspace(0, 1, 101)[:, None], bins=4)
      >>> encoder, x = PiecewiseLinearEncoder(edges=edges, width=3), jnp.zeros((2, 1))
      >>> call = functools.partial(encoder.init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> tokens.values.shape
      (2, 1, 128)
    """

    bins: int = 16
    edges: tuple[tuple[float, ...], ...] | None = None
    width: int = 24
    encoder: nn.Module = MLPEncoder()

    @nn.nowrap
    def needs_inputs(self) -> bool:
        """Returns whether `learn_from_inputs` has something to compute."""
        return self.edges is None

    @nn.nowrap
    def learn_from_inputs(self, x: Num[np.ndarray, "n d"]) -> Any:
        """Returns the encoder with the edges of training examples."""
        return self.clone(edges=compute_bin_edges(x, self.bins), parent=None)

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps vectors [b d] to the tokens of `encoder`.

        Raises:
          ValueError: if `edges` is missing, or is for another number of features.
        """
        x = check_vectors(x, "PiecewiseLinearEncoder")
        edges = self.edges or ()
        if len(edges) != x.shape[1]:
            raise ValueError(
                f"PiecewiseLinearEncoder has edges for {len(edges)} features but got "
                f"{x.shape[1]}; outside of an Experiment, give it edges=compute_bin_edges(x, bins) "
                "of training examples x [n d]."
            )
        passed = encode_piecewise_linearly(x, edges)
        embedded = nn.relu(PerFeatureDense(self.width, name="embed")(passed))
        return self.encoder(embedded, None, train=train)


def compute_bin_edges(x: Num[np.ndarray, "n d"], bins: int) -> tuple[tuple[float, ...], ...]:
    """Computes the quantiles of every feature, without repetitions, as edges of bins.

    A feature with few values has fewer bins; a constant one has a single bin.

    Raises:
      ValueError: if `values` has no examples, or `bins` is less than 1.

    Example:
      >>> compute_bin_edges(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]), bins=2)
      ((0.0, 1.0, 2.0), (5.0, 6.0))
    """
    if x.ndim != 2 or not len(x) or bins < 1:
        raise ValueError(f"bins={bins} of an array {x.shape}: give examples [n d] and bins over 0.")
    return tuple(_find_distinct_quantiles(column, bins) for column in np.asarray(x, np.float64).T)


def _find_distinct_quantiles(column: Float[np.ndarray, " n"], bins: int) -> tuple[float, ...]:
    """Returns the edges of at most `bins` bins with about equally many values."""
    quantiles = np.quantile(column, np.linspace(0, 1, bins + 1))
    spread = quantiles[-1] - quantiles[0]
    # Equal quantiles, of values that occur often, would make bins of width 0.
    edges = [quantiles[0]]
    for quantile in quantiles[1:]:
        if quantile - edges[-1] > _CLOSEST * spread:
            edges.append(quantile)
    if len(edges) == 1:
        edges.append(edges[0] + 1)
    return tuple(map(float, edges))


def encode_piecewise_linearly(
    x: Float[Array, "b d"], edges: tuple[tuple[float, ...], ...]
) -> Float[Array, "b d t"]:
    """Computes how much of each bin every number has passed; features with fewer bins get zeros.

    Example:
      >>> encode_piecewise_linearly(jnp.array([[1.5]]), ((0.0, 1.0, 2.0, 3.0),)).tolist()
      [[[1.0, 0.5, 0.0]]]
    """
    bins = max(map(len, edges)) - 1
    start, size = np.zeros((len(edges), bins)), np.ones((len(edges), bins))
    # Bounds of the passed share: the first bin has no lower and the last one no upper bound.
    low, high = np.zeros((len(edges), bins)), np.zeros((len(edges), bins))
    for i, row in enumerate(edges):
        count = len(row) - 1
        start[i, :count], size[i, :count] = row[:-1], np.diff(row)
        high[i, :count] = 1.0
        low[i, 0], high[i, count - 1] = -np.inf, np.inf
    # (x - b_i) / (b_{i+1} - b_i): 0 before a bin, 1 beyond it, linear inside.
    share = (x[:, :, None] - start[None].astype(x.dtype)) / size[None].astype(x.dtype)
    return jnp.clip(share, low[None].astype(x.dtype), high[None].astype(x.dtype))
