"""Copies of one module, each with parameters of its own, as one module with stacked parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn


class Copies(NamedTuple):
    """Numbers of copies of the backbone that a sharing requests, or their outputs for a batch.

    The backbone is everything before the sharing: encoders and fusion. A sharing whose method
    `copies(tasks)` returns numbers gets stacks of outputs in place of one fused representation; if
    the method is missing, or returns None, there is one backbone.

    Attributes:
      shared: copies that may serve every task: their number, or their stack [n b d].
      own: copies that serve one task alone, equally many per task: their total number, or their
        stack [n b d], those of the first task first. Balancers leave their parameters alone.

    Example:
      >>> from mmjax.sharing import TaskSpecific
      >>> TaskSpecific().copies(("a", "b"))
      Copies(shared=None, own=2)
    """

    shared: Any = None
    own: Any = None


def copied(
    call: Callable[..., Any], count: int, in_axes: int | tuple[int | None, ...] | None = None
) -> Callable[..., Any]:
    """Returns a function that calls `count` copies of a module at once and stacks their results.

    The parameters and all other variables, such as batch statistics and values sown as
    "intermediates", have the copies as their leading axis, and so have the inputs if `in_axes` is
    0; if it is None, all copies get the same inputs. Dropout is independent per copy.

    Args:
      call: (module, *inputs) -> result of one copy.
      count: number of copies.
      in_axes: axis of the copies in each input, or None.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> class Heads(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         return copied(lambda dense, x: dense(x), 3)(nn.Dense(5, name="dense"), x)
      >>> y, _ = jax.eval_shape(Heads().init_with_output, jax.random.key(0), jnp.zeros((2, 4)))
      >>> y.shape
      (3, 2, 5)
    """
    return nn.vmap(
        call,
        in_axes=in_axes,
        axis_size=count,
        variable_axes={True: 0},  # those of every collection
        # Every copy gets initial parameters and dropout masks of its own.
        split_rngs={"params": True, "dropout": True},
    )
