"""Multi-gate mixture of experts."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.sharing.copies import Copies
from mmjax.sharing.experts import (
    Expert,
    apply_experts,
    apply_linear_copies,
    check_expert_counts,
    concatenate_copies,
    split_by_task,
)


class MMoE(nn.Module):
    """Shared experts f_i, mixed by one gate per task t: Σ_i g_ti(x) f_i(x), g_t = softmax(W_t x).

    The gates are sown as "gates" [t b n].

    Source: Ma et al., KDD 2018, section 4.2.

    Attributes:
      experts: number of experts.
      features: width of each expert's layers.
      backbones: whether each expert has a copy of the whole backbone below its layers; the gates
        then read the outputs of all copies.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = MMoE(experts=3, features=(4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    experts: int
    features: tuple[int, ...] = ()
    backbones: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self, "experts")
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
        # f_t(x) = sum_n softmax(W_t x)_n expert_n(x), section 4.2 of the paper.
        gate = nn.Dense(self.experts, use_bias=False, name="own_gates")
        gates = nn.softmax(apply_linear_copies(gate, len(tasks), concatenate_copies(x)))
        self.sow("intermediates", "gates", gates)
        return split_by_task(jnp.einsum("tbn,nbe->tbe", gates, outputs), tasks)
