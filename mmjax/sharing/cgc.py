"""Customized gate control: shared experts beside experts of one task."""

import functools
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


class CGC(nn.Module):
    """A task's gate mixes that task's own experts and the shared ones: softmax(W_t x)ᵀ f(x).

    The gates are sown as "gates" [t b n], a task's own experts first.

    Source: Tang et al., RecSys 2020, section 4.1.

    Attributes:
      shared: number of shared experts.
      own: number of experts of each task.
      features: width of each expert's layers.
      backbones: whether each expert has a copy of the whole backbone below its layers; a task's
        gate then reads the outputs of the copies that it mixes.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = CGC(shared=2, own=1, features=(4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    shared: int
    own: int
    features: tuple[int, ...] = ()
    backbones: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self, "shared", "own")
        super().__post_init__()

    def copies(self, tasks: Sequence[str]) -> Copies | None:
        """Returns one copy per expert if `backbones`, else None."""
        return Copies(self.shared, len(tasks) * self.own) if self.backbones else None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"] | Copies, tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d], or copies [n b d], to {task: [b features[-1]]}."""
        inputs = x if isinstance(x, Copies) else Copies(x, x)
        expert = functools.partial(Expert, self.features, self.dropout)
        shared = apply_experts(
            expert(name="shared_experts"), self.shared, inputs.shared, train=train
        )
        own = apply_experts(
            expert(name="own_experts"), len(tasks) * self.own, inputs.own, train=train
        )
        gate = nn.Dense(self.own + self.shared, use_bias=False, name="own_gates")
        # sum_n gate_tn(x) expert_n(x), with one gate per task and example.
        gates = nn.softmax(
            apply_linear_copies(gate, len(tasks), _gather_gate_inputs(x, len(tasks)))
        )
        self.sow("intermediates", "gates", gates)
        return split_by_task(mix_experts(gates, own, shared), tasks)


def _gather_gate_inputs(
    x: Float[Array, "b d"] | Copies, tasks: int
) -> Float[Array, "b d"] | Float[Array, "t b e"]:
    """Returns the gates' inputs: the fused vector, or per task the copies that its gate mixes."""
    if not isinstance(x, Copies):
        return x
    own = x.own.reshape(tasks, -1, *x.own.shape[1:])
    shared = jnp.broadcast_to(x.shared, (tasks, *x.shared.shape))
    return concatenate_copies(jnp.concatenate([own, shared], axis=1))


def mix_experts(
    gates: Float[Array, "t b n"], own: Float[Array, "to b e"], shared: Float[Array, "s b e"]
) -> Float[Array, "t b e"]:
    """Sums each task's own experts and the shared ones, weighted by its gate."""
    # Task t mixes its own experts and the shared ones; the gate's softmax is over both kinds.
    own = own.reshape(len(gates), -1, *own.shape[1:])
    own_gates, shared_gates = jnp.split(gates, [own.shape[1]], axis=-1)
    from_own = jnp.einsum("tbo,tobe->tbe", own_gates, own)
    return from_own + jnp.einsum("tbs,sbe->tbe", shared_gates, shared)
