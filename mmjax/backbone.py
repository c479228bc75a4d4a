"""Parts of a model's backbone, which is the encoders and the fusion, and masked encoding."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from mmjax.fusion.pooling import encode_patterns
from mmjax.layers.batch_norm import restrict_batch_statistics, supply_batch_statistics
from mmjax.layers.feature_dropout import drop_features
from mmjax.masks import make_length_mask, zero_missing_values
from mmjax.sharing import Copies, copied
from mmjax.types import FeatureDropout, Tokens, Visible


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


def show_tokens(tokens: Tokens, visible: Visible) -> Tokens:
    """Hides the tokens of examples that do not show the modality, and drops features."""
    if not isinstance(visible, FeatureDropout):
        return hide_tokens(tokens, visible)
    values = drop_features(tokens.values, visible.rates, visible.keys)
    return hide_tokens(Tokens(values, tokens.mask), visible.shown)


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
        visible: Mapping[str, Visible] | None = None,
        subsets: Sequence[SubsetPass] = (),
    ) -> Any:
        """Returns the fused features, the tokens that every encoder makes, and further passes.

        `visible` says which modalities the fusion sees; the others are missing. `subsets` are
        further passes of the same tokens before they are hidden: a list of fused features.
        """
        encoded = {
            m: encode_modality(encoder, inputs[m], present[m], lengths.get(m), train=train)
            for m, encoder in sorted(self.encoders.items())
        }
        seen = encoded
        if visible is not None:
            seen = {m: show_tokens(tokens, visible[m]) for m, tokens in encoded.items()}
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


def run_backbones(
    sharing: nn.Module,
    common: BackboneParts,
    own: BackboneParts,
    run: Callable[..., Any],
    tasks: Sequence[str],
) -> tuple[Any, list[BackbonePass], list[Any]]:
    """Runs the backbone, or copies of it.

    Args:
      sharing: may request copies by a method `copies`; see `mmjax.sharing.Copies`.
      common: the parts of the backbone that serves all tasks.
      own: the parts of the backbones that serve one task each.
      run: parts -> (fused features, tokens, fused features of further passes), as
        `BackboneParts.run` returns them.
      tasks: names of the tasks, sorted.

    Returns:
      The fused features, `Copies` of them if the sharing requests it; one pass per copy; the fused
      features of the further passes, in the form of the first.
    """
    wanted = sharing.copies(tasks) if hasattr(sharing, "copies") else None
    if wanted is None:
        fused, tokens, others = run(common)
        return fused, [BackbonePass(fused, tokens, get_sown_values(common.fusion))], others
    stacks: list[Any] = []
    passes: list[BackbonePass] = []
    for count, parts, is_own in ((wanted.shared, common, False), (wanted.own, own, True)):
        stack: Any = copied(run, count)(parts) if count else (None, None, [])
        stacks.append(stack)
        stacked = BackbonePass(stack[0], stack[1], get_sown_values(parts.fusion))
        for i in range(count or 0):
            # Own copies are stacked task by task, `count // len(tasks)` for each.
            task = i * len(tasks) // count if is_own else None
            passes.append(jax.tree.map(lambda x, i=i: x[i], stacked)._replace(task=task))
    fused = Copies(*(stack[0] for stack in stacks))
    further = max(len(stack[2]) for stack in stacks)
    others = [Copies(*(s[2][j] if s[2] else None for s in stacks)) for j in range(further)]
    return fused, passes, others
