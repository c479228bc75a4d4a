"""Arrays that are split over the devices of a group, and whole where they are used (FSDP).

The compiler partitions the step of one device: the arrays of a state are split along one of their
axes, those of a batch along the examples, and losses, norms and Gramians are those of one device
whatever the optimizer and the balancer are. Only two things have to be requested: that parameters
are gathered where the model uses them, and that their gradients are split again.

Source: Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models",
SC 2020 (stage 3); Xu et al., "GSPMD: general and scalable parallelization for ML computation
graphs", 2021.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mmjax.inspection.equations import iterate_equations
from mmjax.train.hardware.device_groups import DEVICE_AXIS
from mmjax.train.steps.unique_leaves import UniqueLeaves, deduplicate_leaves

MIN_SPLIT_SIZE = 4096
"""Values that an array must have to be split: gathering a small one takes longer than it saves."""

_MOVES = {
    "broadcast_in_dim",
    "convert_element_type",
    "expand_dims",
    "reshape",
    "sharding_constraint",
    "squeeze",
    "transpose",
}
"""Primitives that copy values without arithmetic; the backward pass repeats them."""

_RECOMPUTED = {"checkpoint", "remat", "remat2"}
"""Names of the primitive of `jax.checkpoint`, in several versions of JAX."""


def choose_split(shape: Sequence[int], devices: int) -> P:
    """Chooses how an array is split: along its largest axis that the devices divide evenly.

    Args:
      shape: of the array.
      devices: number of devices.

    Returns:
      The specification; an array that is small or cannot be divided is whole on every device.

    Example:
      >>> [tuple(choose_split(shape, 8)) for shape in ((512, 768), (1001, 9), (8, 8))]
      [(None, 'data'), (), ()]
    """
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not divisible or np.prod(shape) < MIN_SPLIT_SIZE:
        return P()
    return P(*[None] * max(divisible, key=lambda axis: (shape[axis], -axis)), DEVICE_AXIS)


def is_split_over_devices(x: Any) -> bool:
    """Returns whether an array is split over the devices of a group."""
    spec = getattr(getattr(x, "sharding", None), "spec", ())
    return DEVICE_AXIS in spec


def split_state(tree: Any) -> Any:
    """Splits the arrays of a replica's state, in a program that the compiler partitions."""
    if not (devices := _count_partitions()):
        return tree
    return jax.tree.map(lambda x: _constrain(x, choose_split(x.shape, devices)), tree)


def split_examples(tree: Any) -> Any:
    """Splits a batch by its examples, in a program that the compiler partitions."""
    if not _count_partitions():
        return tree
    return jax.tree.map(lambda x: _constrain(x, P(DEVICE_AXIS)), tree)


def gather_arrays(tree: Any) -> Any:
    """Gathers split arrays; their gradients are split again.

    In programs that the compiler does not partition it returns the tree as it is.
    """
    if not _count_partitions():
        return tree
    # The transpose of both constraints: the sum over devices first, then the split of it, which the
    # compiler turns into one reduce-scatter where the platform has it.
    return jax.tree.map(lambda x: _constrain(x, P()), split_state(tree))


def regather_in_backward_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function that does not keep the arrays it gathers for its backward pass.

    The backward pass gathers them again, so that a device holds whole arrays for a part of the
    model at a time. Activations are kept: nothing else is computed twice. In programs that the
    compiler does not partition it returns the function itself.

    A function with parts that are recomputed anyway (`Model.remat`, `accumulate`) is called as it
    is: its arrays stay gathered until its backward pass, since `jax.checkpoint` around those parts
    would keep the activations that they recompute, which are larger.
    """
    if not _count_partitions():
        return function

    def is_saved(primitive: Any, *_: Any, **__: Any) -> bool:
        return primitive.name not in _MOVES

    def compute(*args: Any) -> UniqueLeaves:
        return deduplicate_leaves(function(*args))

    def call(*args: Any) -> Any:
        if any(map(_recomputes_all, iterate_equations(jax.make_jaxpr(compute)(*args)))):
            return function(*args)
        return jax.checkpoint(compute, policy=is_saved)(*args).restore()

    return call


def _recomputes_all(equation: Any) -> bool:
    """Returns whether an equation is a `jax.checkpoint` that keeps nothing of what it computes."""
    return equation.primitive.name in _RECOMPUTED and equation.params["policy"] is None


def _count_partitions() -> int:
    """Returns the number of devices among which the compiler divides arrays; 0 if it does not.

    It is known by JAX's mesh in context, of which `shard_map` and `pmap` make the axes manual.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return int(mesh.shape[DEVICE_AXIS]) if axes.get(DEVICE_AXIS) == AxisType.Auto else 0


def _constrain(x: Any, spec: P) -> Any:
    return jax.lax.with_sharding_constraint(x, spec)
