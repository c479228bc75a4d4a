"""Predictions from subsets of the modalities, in one program that encodes every modality once."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from mmjax.backbone import join_modalities
from mmjax.model import Model
from mmjax.train.steps.forward import cast_floats, cast_params
from mmjax.types import Batch, Variables


def make_all_subsets(count: int) -> Bool[np.ndarray, "s m"]:
    """Makes the 2^M subsets of M modalities: row i has modality j if bit j of i is 1.

    The first row is the empty subset, the last one has all modalities.

    Example:
      >>> make_all_subsets(2).astype(int).tolist()
      [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    rows = [row[::-1] for row in itertools.product((False, True), repeat=count)]
    return np.array(rows, bool).reshape(2**count, count)


def name_subset(subset: Iterable[Any], modalities: Sequence[str]) -> str:
    """Names a subset by its modalities, as the facts of `mmjax.data.interactions` do.

    Example:
      >>> name_subset([True, False, True], ["a", "b", "c"]), name_subset([False], ["a"])
      ('a+c', 'none')
    """
    return join_modalities(m for m, has in zip(modalities, subset, strict=True) if has)


def predict_from_subsets(
    model: Model,
    variables: Variables,
    batch: Batch,
    subsets: Bool[Array | np.ndarray, "s m"],
    *,
    compute_dtype: str = "float32",
) -> dict[str, Array]:
    """Predicts every task from each subset of the modalities, as if the others were missing.

    The encoders run once, whatever the number of subsets. An example that lacks a modality lacks it
    in every subset; one without any modality left gets the model's prediction from nothing.

    Args:
      model: the model.
      variables: {"params": parameters, and other collections}, as `Model.apply` takes them.
      batch: examples; only inputs, presence and lengths are used.
      subsets: which modalities each subset has, in the order of `sorted(model.encoders)`.
      compute_dtype: "float32" or "bfloat16".

    Returns:
      {task: predictions [s b ...]}, in float32.

    Example:
      >>> from mmjax import encoders, fusion, heads
      >>> parts = {"a": encoders.Features(), "b": encoders.Features()}
      >>> model = Model(parts, fusion.Concat(), {"y": heads.Regression(mean=0.0, scale=1.0)})
      >>> inputs = {"a": jnp.ones((3, 1)), "b": jnp.ones((3, 1))}
      >>> present = {"a": jnp.ones(3, bool), "b": jnp.ones(3, bool)}
      >>> variables = model.init(jax.random.key(0), inputs, present, {}, train=False)
      >>> batch = Batch(inputs, present, {}, {}, {})
      >>> predict_from_subsets(model, variables, batch, make_all_subsets(2))["y"].shape
      (4, 3)
    """
    cast_variables = cast_params(variables, compute_dtype)
    inputs = cast_floats(jax.tree.map(jnp.asarray, batch.inputs), compute_dtype)
    modalities = sorted(model.encoders)

    def predict_from(subset: Bool[Array, " m"]) -> dict[str, Array]:
        visible = {m: subset[i : i + 1] for i, m in enumerate(modalities)}
        features: Any = model.apply(
            cast_variables,
            inputs,
            batch.present,
            batch.lengths,
            train=False,
            visible=visible,
            method="represent_and_record",
        )[0]
        predictions: Any = model.apply(cast_variables, features, train=False, method="predict")
        return cast_floats(predictions, jnp.float32)

    # Only what depends on the subset is batched, and so the encoders are not.
    return jax.vmap(predict_from)(jnp.asarray(subsets, bool))
