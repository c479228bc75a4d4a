"""Progressive layered extraction: levels of shared experts and experts of one task."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.sharing.cgc import mix_experts
from mmjax.sharing.experts import (
    Expert,
    apply_experts,
    apply_linear_copies,
    check_expert_counts,
    split_by_task,
)


class PLE(nn.Module):
    """Levels of CGC. Between two levels, a common gate mixes the experts of all tasks as well.

    A task's experts get the output of that task's gate one level below, the shared experts that of
    the common gate; at the first level all get x. One level is CGC.

    The tasks' gates of each level are sown as "gates" [t b n], a task's own experts first.

    Source: Tang et al., RecSys 2020, section 4.2.

    Attributes:
      levels: number of levels.
      shared: number of shared experts at each level.
      own: number of experts of each task at each level.
      features: width of each expert's layers.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = PLE(levels=2, shared=1, own=1, features=(4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    levels: int
    shared: int
    own: int
    features: tuple[int, ...]
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self, "levels", "shared", "own")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d] to {task: [b features[-1]]}."""
        common, streams = x, jnp.broadcast_to(x, (len(tasks), *x.shape))
        for level in range(self.levels):
            streams, outputs = self.extract(level, common, streams, train=train)
            if level < self.levels - 1:
                # The common stream mixes all experts of the level below, own and shared.
                gate = nn.Dense(len(outputs), use_bias=False, name=f"common_gate_{level}")
                common = jnp.einsum("bn,nbe->be", nn.softmax(gate(common)), outputs)
        return split_by_task(streams, tasks)

    def extract(
        self,
        level: int,
        common: Float[Array, "b d"],
        streams: Float[Array, "t b d"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "t b e"], Float[Array, "n b e"]]:
        """Returns the outputs of one level's task gates, and those of all of its experts."""
        tasks, above = len(streams), self.levels - 1 - level
        # Whatever a common gate mixes, at this level or one above, reaches every task, so only the
        # top level's experts and the top two levels' gates are a task's own.
        experts_prefix = "own" if above == 0 else "task"
        gates_prefix = "own" if above <= 1 else "task"
        expert = functools.partial(Expert, self.features, self.dropout)
        inputs = jnp.repeat(streams, self.own, axis=0)
        own = apply_experts(
            expert(name=f"{experts_prefix}_experts_{level}"), len(inputs), inputs, train=train
        )
        shared = apply_experts(
            expert(name=f"shared_experts_{level}"), self.shared, common, train=train
        )
        gate = nn.Dense(
            self.own + self.shared, use_bias=False, name=f"{gates_prefix}_gates_{level}"
        )
        gates = nn.softmax(apply_linear_copies(gate, tasks, streams))
        self.sow("intermediates", "gates", gates)
        return mix_experts(gates, own, shared), jnp.concatenate([own, shared])
