"""Parts of a model's backbone: masked encoding, and the branches and copies that backbones make.

A backbone is the encoders and the fusion. Late fusion makes `Branches`, one representation per
modality; a sharing may ask for `Copies` of the backbone.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.batch_norm import restrict_batch_statistics
from mmjax.masks import make_length_mask, zero_missing_values
from mmjax.sharing import Copies
from mmjax.types import Branches, Tokens


class BackbonePass(NamedTuple):
    """Output of one backbone for a batch.

    Attributes:
      fused: output of the fusion: Float[b d], or `Branches`.
      tokens: outputs of the encoders, by modality.
      sown: values that the fusion sows.
      task: index of the only task that the backbone serves; None if it serves all tasks.
    """

    fused: Any
    tokens: dict[str, Tokens]
    sown: dict[str, Any]
    task: int | None = None

    def is_used_by(self, task: int) -> bool:
        """Returns whether the backbone serves that task."""
        return self.task in (None, task)


def encode_modality(
    encoder: nn.Module,
    x: Any,
    present: Bool[Array, " b"],
    length: Any | None,
    *,
    train: bool,
) -> Tokens:
    """Encodes one modality; zeros replace absent examples and padding before and after."""
    length = jax.tree.map(lambda n: jnp.where(present, n, 0), length)
    # A tree of arrays has no common time axis: its encoder passes masks to its batch norms.
    steps = isinstance(x, jax.Array) and isinstance(length, jax.Array)
    rows = make_length_mask(length, x.shape[1], jnp) if steps else present
    with restrict_batch_statistics(rows):
        tokens = encoder(zero_missing_values(x, present, length), length, train=train)
    mask = tokens.mask & present[:, None]
    return Tokens(jnp.where(mask[..., None], tokens.values, 0), mask)


def get_sown_values(module: nn.Module) -> dict[str, Any]:
    """Returns what a module itself has sown as "intermediates", if that collection is mutable."""
    sown = module.variables.get("intermediates", {})
    # Submodules' collections are dictionaries; values that are sown are tuples, one per call.
    return {name: value[0] for name, value in sown.items() if isinstance(value, tuple)}


def _is_branches(x: Any) -> bool:
    """Returns whether late fusion made this."""
    return isinstance(x, Branches)


def select_branch(fused: Branches | Copies, modality: str) -> Any:
    """Returns one modality's branch, or the copies of it."""
    return jax.tree.map(lambda x: x.values[modality], fused, is_leaf=_is_branches)


def compute_branch_weights(fused: Any, task: int, tasks: int) -> dict[str, Float[Array, " b"]]:
    """Returns a task's weights of the branches; {} if there are no branches.

    With copies of the backbone it is the mean over those that serve the task.
    """
    if not isinstance(fused, Copies):
        return fused.weights if _is_branches(fused) else {}
    stacks = [fused.shared.weights] if _is_branches(fused.shared) else []
    if _is_branches(fused.own):
        stacks.append(jax.tree.map(lambda w: jnp.split(w, tasks)[task], fused.own.weights))
    return jax.tree.map(lambda *w: jnp.concatenate(w).mean(axis=0), *stacks) if stacks else {}
