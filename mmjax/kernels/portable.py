"""Chooses between a version that is fast on CPU and the plain one, which runs anywhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

# A context of JAX's own, so that functions that were traced with the other choice are traced again.
_uses_plain_versions = jax.make_user_context(False)


def choose_by_platform(*arguments: Any, cpu: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """Calls `cpu` or `plain`; the choice is made when the program is lowered for a platform.

    Inside `use_plain_kernels` it is `plain`, and `cpu` is not even traced.

    Example:
      >>> float(choose_by_platform(2.0, cpu=lambda x: x + x, plain=lambda x: 2 * x))
      4.0
    """
    if _uses_plain_versions.value:
        return plain(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=cpu, default=plain)


@contextlib.contextmanager
def use_plain_kernels() -> Iterator[None]:
    """Traces the plain version of every kernel inside the block, for programs that leave mmjax.

    Example:
      >>> with use_plain_kernels():
      ...     float(choose_by_platform(2.0, cpu=lambda x: x + x, plain=lambda x: -x))
      -2.0
    """
    with _uses_plain_versions(True):
        yield
