"""Recomputes parts of a model in the backward pass, so that their activations need no memory."""

import contextlib
import contextvars
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax

_is_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("is_inside", default=False)


@contextlib.contextmanager
def rematerialize_modules(patterns: Sequence[str]) -> Iterator[None]:
    """Rematerializes the modules that are called in the context and whose paths match.

    The forward pass keeps only what goes into such a module, and the backward pass computes the
    module again, with the same random numbers. Values and gradients do not change. Inside of a
    module that matches, others are computed as usual. The pattern of a part matches the copies that
    a sharing makes of it for single tasks, too.

    Source: Chen et al., "Training deep nets with sublinear memory cost", 2016 (arXiv:1604.06174).

    Args:
      patterns: of the paths of modules, as of `fnmatch`; a path is that of the module's parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model, x = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(1)]), jnp.ones((2, 3))
      >>> variables = model.init(jax.random.key(0), x)
      >>> def compute(variables):
      ...     with rematerialize_modules(["layers_0"]):
      ...         return model.apply(variables, x).sum()
      >>> print(jax.grad(compute)(variables)["params"]["layers_2"]["bias"])
      [2.]
    """

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path).removeprefix("own_")
        if _is_inside.get() or context.method_name != "__call__" or not _matches(path, patterns):
            return call(*args, **kwargs)
        return _call_with_checkpoint(context.module, args, kwargs)

    if not patterns:
        yield
        return
    with nn.intercept_methods(intercept):
        yield


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _call_with_checkpoint(module: nn.Module, args: Any, kwargs: Any) -> Any:
    """Calls a module under `flax.linen.remat`."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    # What is not an array, such as `train`, is no argument of a checkpoint.
    traced = {i: x for i, x in enumerate(leaves) if isinstance(x, jax.Array)}

    def call(module: nn.Module, traced: dict[int, jax.Array]) -> Any:
        args, kwargs = jax.tree.unflatten(treedef, [traced.get(i, x) for i, x in enumerate(leaves)])
        token = _is_inside.set(True)
        try:
            return module(*args, **kwargs)
        finally:
            _is_inside.reset(token)

    return nn.remat(call)(module, traced)
