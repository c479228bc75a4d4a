"""Batch norm inside a model: the rows and devices that its statistics cover.

The parts of a model use `flax.linen.BatchNorm` as it is, without any argument. The model supplies
what only it knows: whether this is training, which examples and time steps are real, and the device
axis. As a result, absent modalities and padding do not enter the statistics, and eight devices
compute the same statistics as one.
"""

import contextlib
import contextvars
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.masks import expand_mask

Rows = Bool[Array, " b"] | Bool[Array, "b t"]


class Moments(NamedTuple):
    """Number of rows, their mean and their biased variance, per feature."""

    rows: Float[Array, "..."]
    mean: Float[Array, "..."]
    variance: Float[Array, "..."]


class _Scope(NamedTuple):
    """Context of a batch norm; `owner` identifies the call of `supply_batch_statistics`."""

    owner: object
    train: bool
    axis_name: str | None
    rows: Rows | None = None


_scope: contextvars.ContextVar[_Scope | None] = contextvars.ContextVar("scope", default=None)
_frozen: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "frozen", default=types.MappingProxyType({})
)


@contextlib.contextmanager
def supply_batch_statistics(*, train: bool, axis_name: str | None = None) -> Iterator[None]:
    """Lets every `flax.linen.BatchNorm` that is called in the context use the right statistics.

    In training they are those of the batch, and the running averages are updated; otherwise, and
    always with `use_running_average=True`, they are the running averages. If no row counts, the
    running averages are used and stay as they are. Of nested contexts, the innermost applies.

    Args:
      train: whether this is training.
      axis_name: name of the device axis, over which the statistics are reduced.

    Example:
      >>> norm, x = nn.BatchNorm(momentum=0.9), jnp.array([[1.0], [3.0]])
      >>> with supply_batch_statistics(train=False):
      ...     variables = norm.init(jax.random.key(0), x)
      >>> with supply_batch_statistics(train=True):
      ...     y, updated = norm.apply(variables, x, mutable=["batch_stats"])
      >>> print(y.ravel().round(3), updated["batch_stats"]["mean"])
      [-1.  1.] [0.2]
    """
    owner = object()

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        scope = _scope.get()
        # An outer context intercepts the call too, and leaves it to the innermost one.
        if scope is None or scope.owner is not owner:
            return call(*args, **kwargs)
        # Flax sets a module up, under `nn.vmap` for one, by calls of other methods.
        if not isinstance(context.module, nn.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        return _normalize(context.module, call, scope, *args, **kwargs)

    with _set_scope(_Scope(owner, train, axis_name)), nn.intercept_methods(intercept):
        yield


@contextlib.contextmanager
def restrict_batch_statistics(rows: Rows) -> Iterator[None]:
    """Restricts the statistics to some rows, within the context of `supply_batch_statistics`.

    Args:
      rows: marks the examples, or the time steps of each example, that count. A mask that a module
        passes to its batch norm restricts them further.

    Example:
      >>> norm, x = nn.BatchNorm(momentum=0.0), jnp.array([[1.0], [3.0], [99.0]])
      >>> with supply_batch_statistics(train=False):
      ...     variables = norm.init(jax.random.key(0), x)
      >>> with supply_batch_statistics(train=True):
      ...     with restrict_batch_statistics(jnp.array([True, True, False])):
      ...         y, updated = norm.apply(variables, x, mutable=["batch_stats"])
      >>> print(updated["batch_stats"]["mean"], updated["batch_stats"]["var"])
      [2.] [1.]
    """
    scope = _scope.get()
    with _set_scope(scope and scope._replace(rows=rows)):
        yield


@contextlib.contextmanager
def freeze_batch_statistics(frozen: Mapping[str, Any]) -> Iterator[None]:
    """Makes batch norms use their running averages in training, too, without updating them.

    Args:
      frozen: the running averages that are frozen, a part of the collection "batch_stats".
    """
    token = _frozen.set(frozen)
    try:
        yield
    finally:
        _frozen.reset(token)


def _is_frozen(norm: nn.BatchNorm) -> bool:
    """Returns whether the running averages of a batch norm are frozen."""
    tree: Any = _frozen.get()
    for name in norm.path:
        tree = tree.get(name, {})
    return bool(tree)


@contextlib.contextmanager
def _set_scope(scope: _Scope | None) -> Iterator[None]:
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def _normalize(
    norm: nn.BatchNorm,
    call: Callable[..., Array],
    scope: _Scope,
    x: Float[Array, "b ..."],
    use_running_average: bool | None = None,
    *,
    mask: Array | None = None,
) -> Array:
    """Calls a batch norm with the statistics of a scope.

    Raises:
      ValueError: if the module would use the statistics of the batch in evaluation.
    """
    requested = norm.use_running_average if use_running_average is None else use_running_average
    if requested is False and not scope.train:
        raise ValueError(
            "A BatchNorm has use_running_average=False in evaluation too, where an example must "
            "not depend on the others of its batch; leave the argument out, and the model supplies "
            "it."
        )
    if requested or not scope.train or _is_frozen(norm):
        return _call_with_averages(norm, call, x)
    axis = (norm.axis,) if isinstance(norm.axis, int) else tuple(norm.axis)
    features = {a % x.ndim for a in axis}
    axes = tuple(a for a in range(x.ndim) if a not in features)
    moments = compute_moments(x, axes, _combine_masks(x, scope.rows, mask), scope.axis_name)
    # Flax normalizes with what the collection holds: for this call, the statistics of the batch.
    updated = {}
    for name, value in (("mean", moments.mean), ("var", moments.variance)):
        average: Array = norm.get_variable("batch_stats", name)
        # A batch without any valid row keeps the averages.
        value = jnp.where(moments.rows > 0, value, average)
        # average <- momentum * average + (1 - momentum) * value
        updated[name] = average + (1 - norm.momentum) * jax.lax.stop_gradient(value - average)
        norm.put_variable("batch_stats", name, value)
    y = _call_with_averages(norm, call, x)
    for name, value in updated.items():
        norm.put_variable("batch_stats", name, value)
    return y


def _call_with_averages(norm: nn.BatchNorm, call: Callable[..., Array], x: Array) -> Array:
    """Normalizes by the stored running averages, regardless of `use_running_average`."""
    # Flax refuses the argument beside the attribute, and freezes the attribute.
    attribute = norm.use_running_average
    object.__setattr__(norm, "use_running_average", True)
    try:
        return call(x)
    finally:
        object.__setattr__(norm, "use_running_average", attribute)


def compute_moments(
    x: Float[Array, "b ..."], axes: Sequence[int], mask: Array | None, axis_name: str | None
) -> Moments:
    """Computes mean and biased variance over some axes of x, and over all devices, in float32.

    The variance is that of centered values: the mean of squares less the square of the mean loses
    everything where the mean is large.

    Args:
      x: the values of one device.
      axes: the axes to reduce.
      mask: marks the values that count, and broadcasts to x; None is all.
      axis_name: name of the device axis; None is one device.

    Example:
      >>> x, mask = jnp.array([[1.0], [3.0], [99.0]]), jnp.array([[True], [True], [False]])
      >>> [value.tolist() for value in compute_moments(x, (0,), mask, None)]
      [[2.0], [2.0], [1.0]]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    counts = jnp.broadcast_to(jnp.array(True) if mask is None else mask, x.shape)

    def sum_rows(*terms: Array) -> Array:
        sums = jnp.stack([term.sum(axes) for term in terms])  # one array: one reduction
        return sums if axis_name is None else jax.lax.psum(sums, axis_name)

    # Two passes, since E x^2 - (E x)^2 cancels if the mean is large against the deviation. Sums and
    # counts are reduced over devices, not means: devices may hold different numbers of rows.
    total, count = sum_rows(jnp.where(counts, x, 0), counts.astype(x.dtype))
    mean = total / jnp.maximum(count, 1)
    # The derivative of the variance with respect to the mean is 0.
    center = jax.lax.stop_gradient(jnp.expand_dims(mean, axes))
    (squares,) = sum_rows(jnp.square(jnp.where(counts, x - center, 0)))
    return Moments(count, mean, squares / jnp.maximum(count, 1))


def _combine_masks(x: Array, rows: Rows | None, mask: Array | None) -> Array | None:
    """Returns the mask of the values that count, broadcastable to x.

    Raises:
      ValueError: if x has other rows than the model's input and the module passes no mask.
    """
    if rows is None:
        return mask
    if x.shape[0] == rows.shape[0]:
        examples = rows if rows.ndim == 1 else rows.any(axis=1)
        if mask is not None:
            return mask & expand_mask(examples, x.ndim)
        if rows.ndim == 1 or x.ndim == 2:  # no time axis is left: whole examples count
            return expand_mask(examples, x.ndim)
        if x.shape[1] == rows.shape[1]:
            return expand_mask(rows, x.ndim)
    if mask is None:
        raise ValueError(
            f"A BatchNorm gets {x.shape}, but the encoder's input has the examples and steps "
            f"{rows.shape}, so it is unknown which values are padding; pass the BatchNorm a `mask` "
            "that broadcasts to its input, made of the encoder's `length`."
        )
    return mask
