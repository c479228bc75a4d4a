"""A sparse mixture of experts with differentiable selection."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.sharing.copies import Copies
from mmjax.sharing.experts import (
    Expert,
    apply_experts,
    apply_linear_copies,
    check_expert_counts,
    concatenate_copies,
    split_by_task,
)


class DSelectK(nn.Module):
    """Per task a mixture of at most k shared experts, chosen by k selectors.

    The problem is to choose k of n experts, min over gates g with ‖g‖₀ ≤ k, Σ g = 1, g ≥ 0. It is
    relaxed: a selector i encodes an expert's index s in m = log₂ n bits, each bit a smooth step S
    of a linear map z_ij of x, so that its distribution over the experts is
    r_i(x)_s = Π_j (S(z_ij) if bit j of s is 1, else 1 - S(z_ij)). S reaches 0 and 1, at which
    the selector chooses one expert. The gate is g(x) = Σ_i softmax(α(x))_i r_i(x). The linear maps
    have biases, so that a gate may also ignore x, which the paper calls static.

    The gates are sown as "gates" [t b n], and as "entropy" [t b] the sum over selectors of the
    entropy of r. A multiple of its mean, in the loss, drives the selectors to single experts.

    Source: Hazimeh et al., NeurIPS 2021 (arXiv:2106.03760), section 3.

    Attributes:
      experts: n, number of experts, a power of two.
      k: number of selectors: the most experts that a task uses once they have converged.
      features: width of each expert's layers.
      backbones: whether each expert has a copy of the whole backbone below its layers; the gates
        then read the outputs of all copies.
      width: γ, the width of the smooth step.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = DSelectK(experts=4, k=2, features=(4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    experts: int
    k: int
    features: tuple[int, ...] = ()
    backbones: bool = False
    width: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self, "experts", "k")
        if self.experts < 2 or self.experts & (self.experts - 1):
            raise ValueError(
                f"DSelectK.experts is {self.experts}; it must be a power of two, 2 or more."
            )
        if self.k > self.experts:
            raise ValueError(f"DSelectK.k is {self.k}; it must be at most experts={self.experts}.")
        super().__post_init__()

    def copies(self, tasks: Sequence[str]) -> Copies | None:
        """Returns one copy per expert if `backbones`, else None."""
        del tasks
        return Copies(shared=self.experts) if self.backbones else None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"] | Copies, tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d], or copies [n b d], to {task: [b features[-1]]}."""
        x = x.shared if isinstance(x, Copies) else x
        expert = Expert(self.features, self.dropout, name="shared_experts")
        outputs = apply_experts(expert, self.experts, x, train=train)
        r = self.select(concatenate_copies(x), len(tasks))
        alpha = apply_linear_copies(
            nn.Dense(self.k, name="own_weights"), len(tasks), concatenate_copies(x)
        )
        # The gate mixes k selectors with the weights softmax(alpha); at most k experts are
        # selected.
        gates = jnp.einsum("tbk,tbkn->tbn", nn.softmax(alpha), r)
        self.sow("intermediates", "gates", gates)
        self.sow("intermediates", "entropy", _entropy(r).sum(axis=-1))
        return split_by_task(jnp.einsum("tbn,nbe->tbe", gates, outputs), tasks)

    def select(self, x: Float[Array, "b d"], tasks: int) -> Float[Array, "t b k n"]:
        """Computes r, each selector's distribution over the experts."""
        table = _write_in_bits(self.experts)
        bits = table.shape[1]
        # At z = 0, S = 1/2 has its steepest slope: all bits are undecided and learn.
        near_zero = nn.initializers.normal(self.width / 100)
        layer = nn.Dense(
            self.k * bits, kernel_init=near_zero, bias_init=near_zero, name="own_selectors"
        )
        z = apply_linear_copies(layer, tasks, x).reshape(tasks, x.shape[0], self.k, 1, bits)
        S = _smooth_step(z, self.width)
        # r_n = prod_b S(z_b) if bit b of n is 1, else 1 - S(z_b): a distribution over all experts
        # that becomes one-hot as the bits become 0 or 1.
        return jnp.where(table, S, 1 - S).prod(axis=-1)


def _smooth_step(t: Float[Array, "..."], width: float) -> Float[Array, "..."]:
    """Computes S(t): 0 below -γ/2, 1 above γ/2, and the cubic with a continuous slope between."""
    # S(t) = -2 t^3 + 3/2 t + 1/2 between -1/2 and 1/2: 0 and 1, with a slope of 0, at the ends and
    # beyond. So a selector reaches exactly 0 or 1 at a finite z.
    t = jnp.clip(t / width, -0.5, 0.5)
    return (1.5 - 2 * t**2) * t + 0.5


def _write_in_bits(count: int) -> Bool[Array, "n m"]:
    """Returns the numbers below `count`, a power of two, in bits."""
    bits = count.bit_length() - 1
    return (jnp.arange(count)[:, None] >> jnp.arange(bits)[None, :]) % 2 == 1


def _entropy(p: Float[Array, "*s n"]) -> Float[Array, "*s"]:
    """Computes -Σ p ln p over the last axis, in nats; the slope at p = 0 is taken to be 0."""
    # Made safe before the logarithm, whose gradient at 0 would be NaN even if masked after it.
    log = jnp.log(jnp.where(p > 0, p, 1))
    return -(p * log).sum(axis=-1)
