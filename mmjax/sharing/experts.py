"""Experts, small networks side by side, and the gates that mix their outputs."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.layers.dropout import Dropout
from mmjax.sharing.copies import copied


class Expert(nn.Module):
    """Dense + ReLU per width.

    Attributes:
      features: width of each layer.
      dropout: rate after every layer, while training.
    """

    features: tuple[int, ...]
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], *, train: bool) -> Float[Array, "b e"]:
        """Maps [b d] to [b features[-1]]."""
        for i, width in enumerate(self.features):
            x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
            x = Dropout(self.dropout)(x, train=train)
        return x


def apply_experts(
    expert: Expert, count: int, x: Float[Array, "b d"] | Float[Array, "n b d"], *, train: bool
) -> Float[Array, "n b e"]:
    """Applies `count` copies of the expert to the same input, or to one input each."""
    if not expert.features:
        return x
    # One batched product for all experts; each has its own parameters on the leading axis.
    run = copied(lambda e, x: e(x, train=train), count, None if x.ndim == 2 else 0)
    outputs: Array = run(expert, x)
    return outputs


def apply_linear_copies(
    layer: nn.Dense, count: int, x: Float[Array, "b d"] | Float[Array, "n b d"]
) -> Float[Array, "n b e"]:
    """Applies `count` copies of a linear layer to the same input, or to one input each."""
    in_axes = None if x.ndim == 2 else 0
    outputs: Array = copied(lambda dense, x: dense(x), count, in_axes)(layer, x)
    return outputs


def concatenate_copies(x: Float[Array, "b d"] | Float[Array, "*t n b d"]) -> Float[Array, "*t b e"]:
    """Returns the input of a gate: the fused vector, or all copies' vectors as one [b n*d]."""
    if x.ndim == 2:
        return x
    copies_last = jnp.moveaxis(x, -3, -2)  # [*t b n d]
    return copies_last.reshape(*copies_last.shape[:-2], -1)


def split_by_task(x: Float[Array, "t b d"], tasks: Sequence[str]) -> dict[str, Float[Array, "b d"]]:
    """Returns one row per task."""
    return dict(zip(tasks, x, strict=True))


def check_expert_counts(module: Any, *counts: str) -> None:
    """Checks that counts are at least 1, and that the experts have layers or backbones.

    Without either, all experts would be the identity.

    Raises:
      ValueError: naming the attribute to change.
    """
    kind = type(module).__name__
    for name in counts:
        if getattr(module, name) < 1:
            raise ValueError(f"{kind}.{name} is {getattr(module, name)}; it must be at least 1.")
    if not module.features and not getattr(module, "backbones", False):
        raise ValueError(
            f"{kind}.features is empty; give it at least one width"
            + (", or set backbones=True." if hasattr(module, "backbones") else ".")
        )
