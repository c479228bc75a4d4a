"""Computes a batch's features from micro-batches, whose activations the backward pass recomputes.

What follows the features, the heads and the losses, sees the whole batch. So every loss, gradient
and Gramian is that of the whole batch, contrastive objectives have all of its negatives, and a
balancer cannot tell the difference; only the memory of the activations is that of one micro-batch.

Source: for contrastive losses Gao et al., "Scaling deep contrastive learning batch size under
memory limited setup", RepL4NLP 2021 (arXiv:2101.06983).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from mmjax.train.steps.joined_variables import check_same_shapes
from mmjax.train.steps.unique_leaves import deduplicate_leaves
from mmjax.types import Variables


def map_micro_batches(
    function: Callable[[Variables, Any, Key[Array, ""]], tuple[Any, Variables]],
    count: int,
    variables: Variables,
    batch: PyTree[Array],
    key: Key[Array, ""],
) -> tuple[Any, Variables]:
    """Applies a function to one micro-batch after the other, and joins what it returns.

    The backward pass computes the function again, and adds up gradients in the parameters' type.

    Args:
      function: (variables, examples, key) -> (outputs, updated variables), which get no gradient.
      count: number of micro-batches.
      variables: those that are not parameters; every micro-batch gets them from the one before.
      batch: examples [b ...]; a micro-batch has every `count`-th, so that it is the same on any
        number of devices.
      key: random key; every micro-batch gets one of its own.

    Returns:
      The outputs, in the shapes that they have for the whole batch: in the order of the examples,
      or the mean over the micro-batches if they have no axis of examples; and the variables after
      the last micro-batch.

    Raises:
      ValueError: if the batch cannot be split evenly, an output has several axes of examples, or
        the variables change their shapes.

    Example:
      >>> batch, key = jnp.arange(4.0), jax.random.key(0)
      >>> double = lambda variables, x, key: ((2 * x, x.mean()), variables)
      >>> map_micro_batches(double, 2, {}, batch, key)[0]
      (Array([0., 2., 4., 6.], dtype=float32), Array(1.5, dtype=float32))
    """
    size = len(jax.tree.leaves(batch)[0])
    if size % count:
        raise ValueError(
            f"accumulate={count} does not divide the {size} examples that one device computes at "
            "once; choose another batch_size."
        )

    def compute(variables: Variables, examples: Any, key: Any) -> tuple[Any, Variables]:
        outputs, updated = function(variables, examples, key)
        check_same_shapes(variables, updated)
        return deduplicate_leaves(outputs), updated

    whole, _ = jax.eval_shape(compute, variables, batch, key)
    # A scan keeps forward and backward apart, so nothing can be merged that was to be redone.
    compute_and_forget = jax.checkpoint(compute, prevent_cse=False)

    def step(variables: Variables, inputs: tuple[Any, Any]) -> tuple[Variables, Any]:
        outputs, updated = compute_and_forget(jax.lax.stop_gradient(variables), *inputs)
        return updated, outputs

    # Every device keeps its examples: neither axis crosses from one device's part to another's.
    split = jax.tree.map(lambda x: jnp.reshape(x, (-1, count, *x.shape[1:])).swapaxes(0, 1), batch)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(count))
    variables, stacked = jax.lax.scan(step, variables, (split, keys))
    return jax.tree.map(_join_outputs, stacked, whole).restore(), variables


def _join_outputs(stacked: Array, whole: jax.ShapeDtypeStruct) -> Array:
    """Joins the outputs [count ...] of micro-batches to the shape of the whole batch's.

    Raises:
      ValueError: if several axes depend on the number of examples.
    """
    part = stacked.shape[1:]
    axes = [i for i, (n, m) in enumerate(zip(part, whole.shape, strict=True)) if n != m]
    if not axes:
        is_floating = jnp.issubdtype(stacked.dtype, jnp.floating)
        return stacked.mean(axis=0, dtype=stacked.dtype) if is_floating else stacked[-1]
    if len(axes) > 1:
        raise ValueError(
            f"A part of the model before the heads makes an array of shape {whole.shape} for the "
            f"batch and {part} for a micro-batch: it compares the examples of a batch with each "
            "other. Move the comparison to an auxiliary objective, which sees the whole batch, or "
            "set accumulate=1."
        )
    # The axis of micro-batches goes behind that of their examples, which are `count` apart.
    return jnp.moveaxis(stacked, 0, axes[0] + 1).reshape(whole.shape)
