"""Heads that label the tokens of one modality: the check and the input of such heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.backbone import BackbonePass
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


def append_tokens(
    heads: Mapping[str, nn.Module],
    features: dict[str, Any],
    passes: Sequence[BackbonePass],
    modalities: Sequence[str],
) -> dict[str, Any]:
    """Gives each head that labels tokens its modality's tokens, together with its features.

    Args:
      heads: {task: head}.
      features: {task: Float[b d_t], or `Branches`}.
      passes: outputs of the backbones; their tokens are averaged over those that serve the task.
      modalities: those that are seen; the tokens of others are zeros.

    Returns:
      {task: features}, with Float[b n f] for heads that label tokens.
    """
    for i, task in enumerate(sorted(heads)):
        if modality := getattr(heads[task], "tokens", None):
            tokens = [p.tokens[modality].values for p in passes if p.is_used_by(i)]
            mean = jnp.stack(tokens).mean(axis=0)
            if modality not in modalities:
                mean = jnp.zeros_like(mean)
            features[task] = append_task_features(task, mean, features[task])
    return features


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
