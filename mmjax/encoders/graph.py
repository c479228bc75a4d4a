"""A graph isomorphism network."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.encoders.mlp import as_one_token
from mmjax.encoders.sequence import make_time_mask, mask_padding, mean_over_time
from mmjax.layers.dropout import Dropout
from mmjax.types import Tokens

if TYPE_CHECKING:  # A part of the model should not need the data packages.
    from mmjax.data.dataset import Modality


class GraphEncoder(nn.Module):
    """A graph isomorphism network: h_v ← MLP((1 + ε) h_v + sum of h_u over the edges u → v).

    An undirected edge is stored in both directions. The readout takes the last layer.

    Source: Xu et al., ICLR 2019 (arXiv:1810.00826), equation 4.1.

    Attributes:
      widths: width of each layer's MLP, which has two Dense layers.
      pool: "sum", as in the source, or "mean" over the nodes; None gives one token per node.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> graphs = {"nodes": jnp.zeros((2, 5, 3)), "edges": jnp.zeros((2, 8, 2), int)}
      >>> call = functools.partial(GraphEncoder((4,)).init_with_output, train=False)
      >>> tokens, _ = jax.eval_shape(call, jax.random.key(0), graphs)
      >>> tokens.values.shape
      (2, 1, 4)
    """

    widths: tuple[int, ...] = (64, 64)
    pool: Literal["sum", "mean"] | None = "sum"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("GraphEncoder.widths is empty; give one width per layer.")
        if self.pool not in ("sum", "mean", None):
            raise ValueError(f"GraphEncoder.pool is {self.pool!r}; use 'sum', 'mean' or None.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Mapping[str, Array],
        length: Mapping[str, Int[Array, " b"]] | None = None,
        *,
        train: bool,
    ) -> Tokens:
        """Maps graphs to one token each, or to one token per node.

        `x` has "nodes", Float[b n d], and "edges", Int[b e 2]: the indices of source and target.
        `length` has the true numbers of nodes and of edges; without them all are real.
        """
        lengths = length or {}
        nodes, real_nodes = mask_padding(x["nodes"], lengths.get("nodes"))
        real_edges = make_time_mask(x["edges"], lengths.get("edges"))
        for i, width in enumerate(self.widths):
            neighbors = sum_over_neighbors(nodes, x["edges"], real_edges)
            nodes = self.update_nodes(i, width, nodes, neighbors)
            nodes = Dropout(self.dropout)(nodes, train=train)
            nodes = jnp.where(real_nodes[:, :, None], nodes, 0)
        if self.pool is None:
            return Tokens(nodes, real_nodes)
        pooled = nodes.sum(axis=1) if self.pool == "sum" else mean_over_time(nodes, real_nodes)
        return as_one_token(pooled)

    def update_nodes(
        self, i: int, width: int, nodes: Float[Array, "b n d"], neighbors: Float[Array, "b n d"]
    ) -> Float[Array, "b n w"]:
        """Applies layer i of GIN: h_v <- MLP((1 + ε) h_v + Σ h_u over the edges u -> v)."""
        epsilon = self.param(f"epsilon_{i}", nn.initializers.zeros, ())
        hidden = nn.Dense(width, name=f"hidden_{i}")((1 + epsilon) * nodes + neighbors)
        updated: Array = nn.relu(nn.Dense(width, name=f"output_{i}")(nn.relu(hidden)))
        return updated

    def check(self, modality: "Modality", name: str) -> None:
        """Raises ValueError unless the modality consists of nodes and edges."""
        parts = modality.parts
        if not {"nodes", "edges"} <= set(parts) or parts["edges"].shape[1:] != (2,):
            raise ValueError(
                f"GraphEncoder needs 'nodes' [n d] and 'edges' [e 2], but the modality {name!r} "
                f"is {modality.describe()}; group two modalities by mmjax.data.group_modalities."
            )


def sum_over_neighbors(
    nodes: Float[Array, "b n d"], edges: Int[Array, "b e 2"], real: Bool[Array, "b e"]
) -> Float[Array, "b n d"]:
    """Sums the nodes at the sources of the edges that end in each node.

    Example:
      >>> edges = jnp.array([[[0, 2], [1, 2], [2, 0]]])
      >>> nodes = jnp.array([[[1.0], [2.0], [4.0]]])
      >>> sum_over_neighbors(nodes, edges, jnp.array([[True, True, False]]))[0, :, 0].tolist()
      [0.0, 0.0, 3.0]
    """

    def sum_in_graph(nodes: Any, edges: Any, real: Any) -> Any:
        # Padded edges point anywhere; their messages are zeros.
        messages = jnp.where(real[:, None], nodes[edges[:, 0]], 0)
        return jnp.zeros_like(nodes).at[edges[:, 1]].add(messages)

    return jax.vmap(sum_in_graph)(nodes, edges, real)
