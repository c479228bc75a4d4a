"""The measured limits of the machine, and the share of them that a step reaches."""

import time
from typing import Any, NamedTuple


class Roof(NamedTuple):
    """The measured limits of the machine at the threads in use.

    Attributes:
      flops: floating-point operations per second of a product of square float32 matrices, at JAX's
        default precision, which on some GPUs is lower than float32's.
      bytes: bytes per second that a copy of a large array reads and writes.
    """

    flops: float
    bytes: float


class Share(NamedTuple):
    """Shares of both limits that a step reaches; the higher one is its bottleneck."""

    flops: float
    bytes: float


def compute_share(roof: Roof, flops: float, moved: float, seconds: float) -> Share:
    """Returns the shares of the limits that a step of so many operations and bytes reaches."""
    return Share(flops / roof.flops / seconds, moved / roof.bytes / seconds)


def measure_roof(rounds: int) -> Roof:
    """Measures both limits: the best of the rounds, since nothing exceeds a limit."""
    import jax
    import jax.numpy as jnp

    on_cpu = jax.default_backend() == "cpu"
    side, entries = (1024, 2**25) if on_cpu else (8192, 2**28)
    a = jax.random.normal(jax.random.key(0), (side, side))
    product = time_best_call(jax.jit(jnp.matmul), (a, a), rounds)
    x = jnp.ones(entries)
    copied = time_best_call(
        jax.jit(lambda x: x + 1), (x,), rounds
    )  # a plain copy might be optimized away
    return Roof(2 * side**3 / product, 2 * x.nbytes / copied)


def time_best_call(function: Any, arguments: tuple[Any, ...], rounds: int) -> float:
    """Returns the fewest seconds of a call."""
    import jax

    jax.block_until_ready(function(*arguments))

    def once() -> float:
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        return time.perf_counter() - start

    return min(once() for _ in range(max(5, rounds)))
