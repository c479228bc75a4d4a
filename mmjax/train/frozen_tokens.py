"""`Experiment.cache_frozen`: tokens of frozen encoders, computed once per split.

Training and evaluation then run a model whose frozen encoders return these tokens. Everything
else, including checkpoints, is unchanged.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.errors import InvalidRngError

from mmjax.backbone import encode_modality
from mmjax.experiment import Experiment
from mmjax.freezing import split_variables
from mmjax.inspection.model_parts import replace_arrays_by_shapes
from mmjax.layers.batch_norm import freeze_batch_statistics, supply_batch_statistics
from mmjax.train.steps.forward import cast_floats, cast_params
from mmjax.train.traced_hparams import Sweep
from mmjax.types import Batch, Tokens, Variables


class CachedTokens(nn.Module):
    """Returns its input {"values": [b n d], "mask": [b n]} as tokens."""

    def __call__(self, x: Mapping[str, Any], length: Any = None, *, train: bool) -> Tokens:
        """Returns the tokens."""
        return Tokens(x["values"], x["mask"])


def find_frozen_encoders(experiment: Experiment, shapes: Variables) -> list[str]:
    """Lists the modalities whose encoders have parameters, none of which train.

    Args:
      experiment: the experiment.
      shapes: those of the model's variables.
    """
    # Here a kernel with a low-rank update counts as one that trains.
    trainable = (*(experiment.trainable or ("*",)), *experiment.lora)
    trained, frozen = split_variables(shapes, trainable)
    # Encoders without parameters are in neither part: they have nothing to freeze.
    return [
        m
        for m in sorted(experiment.model.encoders)
        if f"encoders_{m}" in frozen.get("params", {}) and f"encoders_{m}" not in trained["params"]
    ]


def check_cache_frozen(experiment: Experiment, shapes: Variables, batch: Batch) -> None:
    """Refuses to cache tokens that are not the same in every step.

    Args:
      experiment: the experiment.
      shapes: those of the model's variables.
      batch: examples, or their shapes.

    Raises:
      ValueError: naming the encoder and the reason.
    """
    model, names = experiment.model, find_frozen_encoders(experiment, shapes)
    # With several copies of the encoders, a modality has several sets of tokens.
    if hasattr(model.sharing, "copies") and model.sharing.copies(tuple(sorted(model.heads))):
        raise ValueError(
            f"cache_frozen is True, but {type(model.sharing).__name__} copies the encoders; leave "
            "it out."
        )
    if not names:
        raise ValueError(
            "cache_frozen is True, but no encoder is frozen; choose `trainable` such that no "
            "parameter of an encoder trains, or leave cache_frozen out."
        )
    if model.auxiliary:
        raise ValueError(
            f"cache_frozen is True, but the auxiliary objective {min(model.auxiliary)!r} may need "
            f"the inputs of {names[0]!r}, which are not kept; leave one of them out."
        )
    for name in names:
        if name in experiment.augment:
            raise ValueError(
                f"cache_frozen is True, but augment changes the inputs of the frozen encoder "
                f"{name!r} in every step; leave one of them out."
            )
        encode = functools.partial(_encode, experiment, name, train=True)
        # Traced without random keys, an encoder raises exactly if it draws from one; nothing is
        # computed.
        try:
            jax.eval_shape(encode, shapes, replace_arrays_by_shapes(batch))
        except InvalidRngError as error:
            raise ValueError(
                f"cache_frozen is True, but the frozen encoder {name!r} draws random numbers in "
                "training, as dropout does; set its dropout to 0, or leave cache_frozen out."
            ) from error


def replace_encoders(sweep: Sweep, names: Sequence[str]) -> Sweep:
    """Returns a sweep of experiments whose encoders of these modalities take tokens."""

    def build(values: Any) -> Experiment:
        experiment = sweep.build(values)
        encoders = dict(experiment.model.encoders) | dict.fromkeys(names, CachedTokens())
        return dataclasses.replace(experiment, model=experiment.model.clone(encoders=encoders))

    return sweep._replace(build=build) if names else sweep


def drop_encoders(variables: Variables, names: Sequence[str]) -> Variables:
    """Returns variables without those of some encoders."""
    parts = {f"encoders_{name}" for name in names}
    return {
        collection: {part: x for part, x in tree.items() if part not in parts}
        for collection, tree in variables.items()
    }


def encode_split(
    experiment: Experiment, names: Sequence[str], frozen: Variables, batch: Batch, *, train: bool
) -> Batch:
    """Replaces inputs by the tokens that frozen encoders compute from them.

    Args:
      experiment: the experiment.
      names: the modalities.
      frozen: the frozen variables, the encoders' among them.
      batch: the whole split, as NumPy arrays.
      train: whether the tokens are for training.
    """
    encode = jax.jit(functools.partial(encode_batch, experiment, names, train=train))
    # One batch at a time bounds the activations on the device; the tokens go to the host.
    size, parts = experiment.eval_batch_size, []
    for start in range(0, batch.size, size):
        # The last part is filled up, so that one program serves all.
        rows = np.minimum(np.arange(start, start + size), batch.size - 1)
        part = jax.device_get(
            encode(frozen, jax.tree.map(lambda x, r=rows: np.asarray(x)[r], batch))
        )
        parts.append(jax.tree.map(lambda x, n=batch.size - start: x[:n], part))
    whole: Batch = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return whole


def encode_batch(
    experiment: Experiment, names: Sequence[str], frozen: Variables, batch: Batch, *, train: bool
) -> Batch:
    """Replaces inputs of a batch by their tokens; see `encode_split`."""
    inputs, lengths = dict(batch.inputs), dict(batch.lengths)
    for name in names:
        tokens = _encode(experiment, name, frozen, batch, train)
        inputs[name] = {"values": tokens.values, "mask": tokens.mask}
        # The tokens' mask takes the place of the length, which counted steps of the raw sequence.
        lengths.pop(name, None)
    return batch._replace(inputs=inputs, lengths=lengths)


def _encode(
    experiment: Experiment, name: str, variables: Variables, batch: Batch, train: bool
) -> Tokens:
    """Computes the tokens of one modality as a training or evaluation step does."""
    encoder, dtype = experiment.model.encoders[name], experiment.compute_dtype
    own = {
        c: tree[f"encoders_{name}"] for c, tree in variables.items() if f"encoders_{name}" in tree
    }

    def call(x: Any, length: Any, *, train: bool) -> Tokens:
        tokens: Any = encoder.apply(cast_params(own, dtype), x, length, train=train)
        return Tokens(*tokens)

    x, present = cast_floats(batch.inputs[name], dtype), batch.present[name]
    # A frozen batch norm uses its running averages in training too, so the cached tokens must.
    with (
        supply_batch_statistics(train=train),
        freeze_batch_statistics(own.get("batch_stats", {})),
    ):
        return encode_modality(call, x, present, batch.lengths.get(name), train=train)
