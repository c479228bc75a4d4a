"""Published limits of TPU chips, and how long collectives take on their tori.

Sources: Google Cloud's pages of TPU v5e, v5p and v6e (docs.cloud.google.com/tpu/docs) for compute,
memory and links; Austin et al., "How to Scale Your Model", 2025 (jax-ml.github.io/scaling-book),
for wraparound links, the cost of ring collectives and the latency of a hop.
"""

import math
from typing import NamedTuple

HOP_SECONDS = 1e-6


class Chip(NamedTuple):
    """Published limits of one chip.

    Attributes:
      flops: peak bfloat16 operations per second.
      memory: bytes of HBM.
      bandwidth: bytes per second of HBM.
      link: bytes per second of one link of the interconnect in one direction.
      wrap: an axis of the torus has wraparound links if this divides its size.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    wrap: int


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 50e9, wrap=16),  # 1600 Gbit/s over 4 links
    "v5p": Chip(459e12, 95e9, 2765e9, 100e9, wrap=4),  # 4800 Gbit/s over 6 links
    "v6e": Chip(918e12, 32e9, 1638e9, 100e9, wrap=16),  # 3200 Gbit/s over 4 links
}


class Slice(NamedTuple):
    """A slice of a pod, such as 2x4 chips of v5e.

    Attributes:
      kind: key of `CHIPS`.
      axes: chips along each axis of the torus.
    """

    kind: str
    axes: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """Limits of each chip."""
        return CHIPS[self.kind]

    @property
    def size(self) -> int:
        """Number of chips."""
        return math.prod(self.axes)

    @property
    def name(self) -> str:
        """The name of JAX's topology, such as "v5e:2x4"."""
        return f"{self.kind}:{'x'.join(map(str, self.axes))}"

    @property
    def links(self) -> int:
        """Links of a chip that a ring along every axis uses, in one direction each."""
        return sum(2 if self._wraps(size) else 1 for size in self.axes if size > 1)

    @property
    def hops(self) -> int:
        """Links between the two chips that are farthest apart."""
        return sum(size // 2 if self._wraps(size) else size - 1 for size in self.axes)

    def _wraps(self, size: int) -> bool:
        return size % self.chip.wrap == 0


def parse_slice(name: str) -> Slice:
    """Parses a name such as "v5e:2x4".

    Raises:
      ValueError: if the kind is unknown or the axes are not numbers.
    """
    kind, _, axes = name.partition(":")
    if kind not in CHIPS or not all(axis.isdecimal() for axis in axes.split("x")):
        raise ValueError(f"{name!r} is not a slice; give {', '.join(CHIPS)} and axes: v5e:2x4.")
    return Slice(kind, tuple(map(int, axes.split("x"))))


def estimate_collective_seconds(chips: Slice, kind: str, size: float, count: float) -> float:
    """Estimates the seconds that collectives over all chips of a slice take.

    An all-reduce is a reduce-scatter and an all-gather: its bytes cross the links twice.

    Args:
      chips: the slice.
      kind: "all-reduce", "all-gather", "reduce-scatter", or another one, of one pass.
      size: bytes of the whole arrays, together.
      count: number of collectives, each of which waits for the farthest chip.
    """
    if chips.size == 1:
        return 0.0
    passes = 2 if kind == "all-reduce" else 1
    moved = size * (chips.size - 1) / chips.size
    return passes * (moved / (chips.links * chips.chip.link) + count * chips.hops * HOP_SECONDS)
