"""Published limits of TPU chips and GPUs, and how long collectives take on their networks.

Sources: Google Cloud's pages of TPU v5e, v5p and v6e (docs.cloud.google.com/tpu/docs) and NVIDIA's
data sheet of the H100 SXM for compute, memory and links; Austin et al., "How to Scale Your Model",
2025 (jax-ml.github.io/scaling-book), for wraparound links, the cost of collectives in rings and in
switched networks, the bandwidth out of a node of GPUs, and the latency of a hop.
"""

import math
from typing import NamedTuple

HOP_SECONDS = 1e-6


class Torus(NamedTuple):
    """Links between the neighbors of a torus.

    Attributes:
      link: bytes per second of one link in one direction.
      wrap: an axis has wraparound links if this divides its size.
    """

    link: float
    wrap: int


class Switches(NamedTuple):
    """Switches between the nodes, and between the GPUs of a node.

    Attributes:
      egress: bytes per second out of a node, and out of a GPU.
    """

    egress: tuple[float, float]


class Chip(NamedTuple):
    """Published limits of one chip.

    Attributes:
      flops: peak bfloat16 operations per second.
      memory: bytes of HBM.
      bandwidth: bytes per second of HBM.
      network: what connects the chips.
    """

    flops: float
    memory: float
    bandwidth: float
    network: Torus | Switches


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, Torus(50e9, wrap=16)),  # 1600 Gbit/s over 4 links
    "v5p": Chip(459e12, 95e9, 2765e9, Torus(100e9, wrap=4)),  # 4800 Gbit/s over 6 links
    "v6e": Chip(918e12, 32e9, 1638e9, Torus(100e9, wrap=16)),  # 3200 Gbit/s over 4 links
    # Dense operations; 8 adapters of 400 Gbit/s per node, 18 links of 25 GB/s per GPU.
    "h100": Chip(989e12, 80e9, 3350e9, Switches((400e9, 450e9))),
}


class Slice(NamedTuple):
    """A slice of a pod, such as 2x4 chips of v5e, or nodes of GPUs, such as 2x8 H100.

    Attributes:
      kind: key of `CHIPS`.
      axes: chips along each axis of the torus; of GPUs, the nodes and the GPUs of each.
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
        """The name of the slice, such as "v5e:2x4", which for TPUs is that of JAX's topology."""
        return f"{self.kind}:{'x'.join(map(str, self.axes))}"

    @property
    def seconds_per_byte(self) -> float:
        """Seconds in which an all-gather moves a byte of the whole array."""
        match self.chip.network:
            case Torus(link=link):
                # A ring along every axis, in both directions if its links wrap around.
                rings = sum(2 if self._wraps(size) else 1 for size in self.axes if size > 1)
                return (self.size - 1) / self.size / (rings * link) if rings else 0.0
            case Switches(egress=egress):
                # A ring at each level; they overlap.
                return max((n - 1) / (n * rate) for n, rate in zip(self.axes, egress, strict=True))

    @property
    def hops(self) -> int:
        """Links, or switches, between the two chips that are farthest apart."""
        if isinstance(self.chip.network, Switches):
            return 3 if self.axes[0] > 1 else int(self.size > 1)  # of nodes: leaf, spine, leaf
        return sum(size // 2 if self._wraps(size) else size - 1 for size in self.axes)

    def _wraps(self, size: int) -> bool:
        """Whether an axis of a torus has wraparound links."""
        network = self.chip.network
        return isinstance(network, Torus) and size % network.wrap == 0


def parse_slice(name: str) -> Slice:
    """Parses a name such as "v5e:2x4" or "h100:2x8".

    Raises:
      ValueError: if the kind is unknown, the axes are not numbers, or those of GPUs are not two.
    """
    kind, _, text = name.partition(":")
    axes = text.split("x")
    if kind not in CHIPS or not all(axis.isdecimal() for axis in axes):
        raise ValueError(f"{name!r} is not a slice; give {', '.join(CHIPS)} and axes: v5e:2x4.")
    if isinstance(CHIPS[kind].network, Switches) and len(axes) != 2:
        raise ValueError(f"{name!r} is not a slice; give nodes and GPUs of each: {kind}:2x8.")
    return Slice(kind, tuple(map(int, axes)))


def estimate_collective_seconds(chips: Slice, kind: str, size: float, count: float) -> float:
    """Estimates the seconds that collectives over all chips of a slice take.

    An all-reduce is a reduce-scatter and an all-gather: its bytes cross the links twice.

    Args:
      chips: the slice.
      kind: "all-reduce", "all-gather", "reduce-scatter", or another one, of one pass.
      size: bytes of the whole arrays, together.
      count: number of collectives, each of which waits for the farthest chip.
    """
    passes = 2 if kind == "all-reduce" else 1
    return passes * (size * chips.seconds_per_byte + count * chips.hops * HOP_SECONDS)
