"""Representations of examples: the inputs of the heads, and the mean tokens of the encoders."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmjax.model import Model
from mmjax.types import Branches


class Embeddings(NamedTuple):
    """Representations of some examples.

    Attributes:
      tasks: {task: Float[n d]}, the input of each task's head, or Float[n tokens d]. Under a fusion
        of predictions, such as `Late`, the branches' inputs side by side.
      modalities: {modality: Float[n d]}, the mean of its encoder's tokens; NaN where it is missing.
        Of several copies of an encoder, the means side by side.
    """

    tasks: dict[str, Any]
    modalities: dict[str, Any]


def make_embed_step(model: Model) -> Callable[..., Embeddings]:
    """Makes the compiled function (variables, inputs, present, lengths) -> embeddings."""

    @jax.jit
    def embed(variables: Any, inputs: Any, present: Any, lengths: Any) -> Embeddings:
        arguments = (variables, inputs, present, lengths)
        method: Any = {"method": "represent_and_record", "mutable": ["intermediates"]}
        (features, passes), _ = model.apply(*arguments, train=False, **method)
        tasks = {t: _join_branches(x) for t, x in features.items()}
        modalities = {}
        for m in model.encoders:
            tokens = [p.tokens[m] for p in passes if m in p.tokens]
            means = [_average_tokens(t.values, t.mask) for t in tokens]
            modalities[m] = jnp.concatenate(means, axis=-1)
        return Embeddings(tasks, modalities)

    return embed


def _join_branches(features: Any) -> Any:
    """Returns the features of a task's head as one array."""
    if not isinstance(features, Branches):
        return features
    return jnp.concatenate([features.values[m] for m in sorted(features.values)], axis=-1)


def _average_tokens(values: Any, mask: Any) -> Any:
    """Averages the tokens of each example; NaN if it has none."""
    total = jnp.where(mask[..., None], values, 0).sum(axis=1)
    return total / mask.sum(axis=1)[:, None].astype(total.dtype)
