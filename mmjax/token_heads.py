"""Heads that label the tokens of one modality: the check and the input of such heads."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.types import Branches


def check_token_head(task: str, head: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
    """Refuses a head that labels the tokens of no modality, or of one that the model lacks.

    Raises:
      ValueError: naming the task, the head and the modalities.
    """
    modality, kind = getattr(head, "tokens", None), type(head).__name__
    known = f"one of {sorted(encoders)}, whose tokens it labels"
    if modality is None and getattr(head, "features", "vector") == "tokens":
        raise ValueError(f"The head of {task!r} needs tokens: give {kind} tokens=, {known}.")
    if modality is not None and modality not in encoders:
        raise ValueError(f"The head of {task!r} has tokens={modality!r}; make it {known}.")


def append_task_features(
    task: str, tokens: Float[Array, "b n d"], features: Float[Array, "b e"] | Branches
) -> Float[Array, "b n f"]:
    """Concatenates the task's features to every token; f = d + e.

    Raises:
      ValueError: under late fusion, which has no features of all modalities.
    """
    if isinstance(features, Branches):
        raise ValueError(
            f"The head of {task!r} gets tokens together with the fused features, but late fusion "
            "makes predictions only; use another fusion."
        )
    repeated = jnp.broadcast_to(features[:, None], (*tokens.shape[:2], features.shape[-1]))
    return jnp.concatenate([tokens, repeated], axis=-1)
