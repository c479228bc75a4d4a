"""Parts of a model's backbone: masked encoding, and the branches and copies that backbones make.

A backbone is the encoders and the fusion. Late fusion makes `Branches`, one representation per
modality; a sharing may ask for `Copies` of the backbone.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.pooling import encode_patterns
from mmjax.layers.batch_norm import restrict_batch_statistics, supply_batch_statistics
from mmjax.masks import expand_mask, make_length_mask, zero_missing_values
from mmjax.sharing import Copies
from mmjax.types import Branches, BranchOutput, Tokens


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


class SubsetPass(NamedTuple):
    """Another pass through what follows the encoders, from the tokens of some modalities.

    Attributes:
      modalities: the modalities; the others are as if they were missing.
      train: whether it is a pass of training; otherwise as at test: no dropout, and batch norms use
        and keep their running averages.
    """

    modalities: tuple[str, ...]
    train: bool

    @property
    def name(self) -> str:
        """The subset's name."""
        return join_modalities(self.modalities)


def join_modalities(modalities: Iterable[str]) -> str:
    """Names a subset of the modalities: "image+text", or "none" for the empty one.

    Example:
      >>> join_modalities(("text", "image"))
      'image+text'
    """
    return "+".join(sorted(modalities)) or "none"


def encode_modality(
    encoder: Callable[..., Tokens],
    x: Any,
    present: Bool[Array, " b"],
    length: Any | None,
    *,
    train: bool,
) -> Tokens:
    """Encodes one modality; zeros replace absent examples and padding before and after."""
    # An absent sequence has length 0, so that its encoder masks all of its steps.
    length = jax.tree.map(lambda n: jnp.where(present, n, 0), length)
    # A tree of arrays has no common time axis: its encoder passes masks to its batch norms.
    steps = isinstance(x, jax.Array) and isinstance(length, jax.Array)
    rows = make_length_mask(length, x.shape[1], jnp) if steps else present
    with restrict_batch_statistics(rows):
        tokens = encoder(zero_missing_values(x, present, length), length, train=train)
    # Encoders may turn zeros into other values, by biases for one; these must not leave the
    # encoder.
    return hide_tokens(tokens, present)


def hide_tokens(tokens: Tokens, visible: Bool[Array, "#b"]) -> Tokens:
    """Masks the tokens of the other examples, and sets masked tokens to zero."""
    mask = tokens.mask & visible[:, None]
    return Tokens(jnp.where(mask[..., None], tokens.values, 0), mask)


def as_at_test(subset: SubsetPass) -> contextlib.AbstractContextManager[None]:
    """Lets batch norms keep their running averages in a pass that is not of training."""
    return contextlib.nullcontext() if subset.train else supply_batch_statistics(train=False)


class BackboneParts(nn.Module):
    """Parts of a backbone that are called together; it has no variables of its own.

    Copies of it are made by `nn.vmap`, which handles modules inside of a module's attributes, but
    not inside of those of its arguments.
    """

    fusion: nn.Module
    encoders: Mapping[str, nn.Module]
    stand_ins: Mapping[str, nn.Module]

    @nn.nowrap
    def run(
        self,
        inputs: Any,
        present: Any,
        lengths: Any,
        *,
        missing: str,
        train: bool,
        visible: Mapping[str, Bool[Array, "#b"]] | None = None,
        subsets: Sequence[SubsetPass] = (),
    ) -> Any:
        """Returns the fused features, the tokens that every encoder makes, and further passes.

        `visible` says which modalities the fusion sees; it takes the others as missing. `subsets`
        are further passes through the fusion, of the same tokens before they are hidden: their
        fused features are a list.
        """
        encoded = {
            m: encode_modality(encoder, inputs[m], present[m], lengths.get(m), train=train)
            for m, encoder in sorted(self.encoders.items())
        }
        seen = encoded
        if visible is not None:
            seen = {m: hide_tokens(tokens, visible[m]) for m, tokens in encoded.items()}
        fused = self._fuse(seen, missing, train=train)
        return fused, seen, [self._fuse_subset(encoded, missing, subset) for subset in subsets]

    def _fuse(self, tokens: dict[str, Tokens], missing: str, *, train: bool) -> Any:
        """Returns the fused features of tokens, with stand-ins for missing ones if requested."""
        # The fusion then gets a token for every modality; objectives still see what was encoded.
        if missing == "bank":
            tokens = fill_from_bank(self.stand_ins, tokens)
        elif missing != "mask":
            tokens = {m: self.stand_ins[m](t) for m, t in tokens.items()}
        return self.fusion(tokens, train=train)

    def _fuse_subset(self, tokens: dict[str, Tokens], missing: str, subset: SubsetPass) -> Any:
        """Returns the fused features of the tokens of some modalities."""
        part = {m: hide_tokens(t, jnp.array([m in subset.modalities])) for m, t in tokens.items()}
        with as_at_test(subset):
            return self._fuse(part, missing, train=subset.train)


def fill_from_bank(
    stand_ins: Mapping[str, nn.Module], tokens: Mapping[str, Tokens]
) -> dict[str, Tokens]:
    """Gives missing modalities the token of the pattern of the others that the example has."""
    filled = {}
    for m, t in tokens.items():
        others = [x.mask.any(axis=1) for name, x in sorted(tokens.items()) if name != m]
        rows = jnp.stack(others) if others else jnp.zeros((0, len(t.mask)), bool)
        filled[m] = stand_ins[m](t, encode_patterns(rows)[0])
    return filled


def copy_module(module: nn.Module) -> Any:
    """Copies a module together with the modules that are its attributes, such as that of `Wrap`.

    Flax's own copy has the same inner modules, whose variables would be those of the original.
    """

    def copy_inner(x: Any) -> Any:
        return copy_module(x).clone(name=None) if isinstance(x, nn.Module) else x

    attributes = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.init}
    inner = {
        name: jax.tree.map(copy_inner, value, is_leaf=_is_module)
        for name, value in attributes.items()
        if name != "parent" and any(map(_is_module, jax.tree.leaves(value, is_leaf=_is_module)))
    }
    return module.copy(**inner)


def _is_module(x: Any) -> bool:
    return isinstance(x, nn.Module)


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
    """Returns a task's weights of the branches; {} if the backbone does not branch.

    With copies of the backbone it is the mean over those that serve the task.
    """
    if not isinstance(fused, Copies):
        return fused.weights if _is_branches(fused) else {}
    # Stacks of weights [copies b] of the copies that serve the task: all shared ones and its own.
    stacks = [fused.shared.weights] if _is_branches(fused.shared) else []
    if _is_branches(fused.own):
        stacks.append(jax.tree.map(lambda w: jnp.split(w, tasks)[task], fused.own.weights))
    return jax.tree.map(lambda *w: jnp.concatenate(w).mean(axis=0), *stacks) if stacks else {}


def predict_branches(
    heads: Mapping[str, nn.Module], branches: Branches, *, train: bool
) -> Iterator[tuple[str, Float[Array, "b ..."]]]:
    """Yields the name and the prediction of every branch, each by a head of its own."""
    for m, values in branches.values.items():
        # A branch with weight 0 belongs to an absent modality; its rows must not enter the
        # statistics.
        with restrict_batch_statistics(branches.weights[m] > 0):
            prediction = heads[m](values, train=train)
        yield m, prediction


def combine_branches(
    heads: Mapping[str, nn.Module], branches: Branches, *, train: bool
) -> Float[Array, "b ..."]:
    """Returns what the head's `combine` makes of the predictions, or else their weighted mean."""
    predictions = predict_branches(heads, branches, train=train)
    combine: Any = getattr(next(iter(heads.values())), "combine", None)
    if combine is not None:
        combined: Array = combine(dict(predictions), branches.weights)
        return combined
    total: Any = 0.0
    for m, prediction in predictions:
        total += expand_mask(branches.weights[m], prediction.ndim) * prediction
    return total


def evaluate_branches(
    heads: Mapping[str, Mapping[str, Any]],
    features: Mapping[str, Any],
    targets: Mapping[str, Any],
    *,
    train: bool,
) -> dict[str, dict[str, BranchOutput]]:
    """Returns each branch's own prediction and loss per task; {} without late fusion.

    Args:
      heads: {branch: {task: head}}.
      features: {task: features}; those of tasks that are not `Branches` are left out.
      targets: {task: [b ...]}, with zeros for missing labels.
      train: whether dropout is active.
    """
    outputs: dict[str, dict[str, BranchOutput]] = {}
    for t, x in features.items():
        if isinstance(x, Branches):
            predictions = predict_branches({m: h[t] for m, h in heads.items()}, x, train=train)
            outputs[t] = {
                m: BranchOutput(y, jax.vmap(heads[m][t].example_loss)(y, targets[t]), x.weights[m])
                for m, y in predictions
            }
    return outputs


def list_branches(encoders: Iterable[str], fusion: nn.Module) -> tuple[str, ...]:
    """Lists the branches that late fusion may make: the modalities and the fusion's extra ones.

    Raises:
      ValueError: if a modality has the name of an extra branch.
    """
    extra = getattr(fusion, "extra_branches", ())
    for name in sorted(set(encoders) & set(extra)):
        raise ValueError(
            f"The modality name {name!r} is that of a branch that {type(fusion).__name__} adds; "
            "rename the modality."
        )
    return (*encoders, *extra)
