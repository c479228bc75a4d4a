"""What the machine can do at most, and what share of it a step reaches."""

import time
from typing import Any, NamedTuple


class Roof(NamedTuple):
    """The measured limits of the machine at the threads in use.

    Attributes:
      flops: floating-point operations a second of a product of square float32 matrices, at JAX's
        default precision, which on some GPUs is lower than float32's.
      bytes: bytes a second that a copy of a large array reads and writes.
    """

    flops: float
    bytes: float


class Share(NamedTuple):
    """Shares of both limits that a step reaches; the higher one says what binds it."""

    flops: float
    bytes: float


def share(roof: Roof, flops: float, moved: float, seconds: float) -> Share:
    """What a step of so many operations and bytes reaches in so many seconds."""
    return Share(flops / roof.flops / seconds, moved / roof.bytes / seconds)


def measure(rounds: int) -> Roof:
    """Measures both limits: the best of the rounds, since nothing can be faster than the roof."""
    import jax
    import jax.numpy as jnp

    on_cpu = jax.default_backend() == "cpu"
    side, entries = (1024, 2**25) if on_cpu else (8192, 2**28)
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = best(jax.jit(jnp.matmul), (a, a), rounds)
    x = jnp.ones(entries)
    copied = best(jax.jit(lambda x: x + 1), (x,), rounds)  # a plain copy might be left out
    return Roof(2 * side**3 / product, 2 * x.nbytes / copied)


def best(function: Any, arguments: tuple[Any, ...], rounds: int) -> float:
    """The fewest seconds of a call."""
    import jax

    jax.block_until_ready(function(*arguments))

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        return time.perf_counter() - start

    return min(once() for _ in range(max(5, rounds)))
