"""The model: encoders -> fusion -> sharing -> heads."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmjax.sharing import HardSharing
from mmjax.types import Branches, Params, Tokens


class Model(nn.Module):
    """Predicts every task from whatever modalities an example has.

    Any encoder goes with any fusion, sharing and head. What stands in the array of an absent
    modality, or behind the end of a sequence, has no effect on predictions or gradients.

    Attributes:
      encoders: {modality: module (x, length, *, train) -> Tokens}.
      fusion: module ({modality: Tokens}, *, train) -> Float[b d], or Branches.
      heads: {task: module (Float[b d], *, train) -> prediction}.
      sharing: module (Float[b d], tasks, *, train) -> {task: Float[b d_t]}.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    heads: Mapping[str, nn.Module]
    sharing: nn.Module = HardSharing()

    def __post_init__(self) -> None:
        for part, unit in (("encoders", "modality"), ("heads", "task")):
            if not getattr(self, part):
                raise ValueError(f"The model's {part} are empty; give it one a {unit}.")
        super().__post_init__()

    def setup(self) -> None:
        """Makes the parts that late fusion needs besides."""
        # Modules without calls have no parameters: these come to life under Branches only.
        self.branch_sharing = {m: self.sharing.copy() for m in self.encoders}
        self.branch_heads = {
            m: {t: head.copy() for t, head in self.heads.items()} for m in self.encoders
        }

    def __call__(
        self,
        inputs: dict[str, Any],
        present: dict[str, Any],
        lengths: dict[str, Any],
        *,
        train: bool,
    ) -> dict[str, Float[Array, "b ..."]]:
        """Predictions {task: [b, ...]} for the inputs of a `Batch`."""
        inputs, present, lengths = jax.tree.map(jnp.asarray, (inputs, present, lengths))
        tokens = {
            m: encode(encoder, inputs[m], present[m], lengths.get(m), train=train)
            for m, encoder in sorted(self.encoders.items())
        }
        fused = self.fusion(tokens, train=train)
        if isinstance(fused, Branches):
            return self.predict_late(fused, train=train)
        return predict(fused, self.sharing, self.heads, train=train)

    def predict_late(self, branches: Branches, *, train: bool) -> dict[str, Float[Array, "b ..."]]:
        """The weighted mean of the predictions that each branch makes with heads of its own."""
        total: dict[str, Any] = dict.fromkeys(self.heads, 0.0)
        for m, values in branches.values.items():
            one = predict(values, self.branch_sharing[m], self.branch_heads[m], train=train)
            for t, prediction in one.items():
                weight = jnp.expand_dims(branches.weights[m], range(1, prediction.ndim))
                total[t] += weight * prediction
        return total


def predict(
    features: Float[Array, "b d"],
    sharing: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    train: bool,
) -> dict[str, Float[Array, "b ..."]]:
    """Shares the features out to the tasks and applies each task's head."""
    shared = sharing(features, tuple(sorted(heads)), train=train)
    return {t: head(shared[t], train=train) for t, head in sorted(heads.items())}


def encode(
    encoder: nn.Module,
    x: Any,
    present: Bool[Array, " b"],
    length: Any | None,
    *,
    train: bool,
) -> Tokens:
    """Encodes one modality; absent examples and padding are made zero before and masked after."""
    real = jnp.expand_dims(present, range(1, x.ndim))
    if length is not None:
        length = jnp.where(present, length, 0)
        inside = jnp.arange(x.shape[1])[None, :] < length[:, None]
        real = real & jnp.expand_dims(inside, range(2, x.ndim))
    tokens = encoder(jnp.where(real, x, jnp.zeros((), x.dtype)), length, train=train)
    mask = tokens.mask & present[:, None]
    return Tokens(jnp.where(mask[..., None], tokens.values, 0), mask)


def shared_parameters(params: Params) -> PyTree[bool]:
    """Marks the parameters that tasks share: all but those of heads."""
    return jax.tree.map_with_path(
        lambda path, _: not path[0].key.startswith(("heads_", "branch_heads_")), params
    )
