"""No sharing: one backbone per task."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.sharing.copies import Copies
from mmjax.sharing.experts import Expert, apply_experts, split_by_task


class TaskSpecific(nn.Module):
    """One copy of the backbone per task, then Dense + ReLU per width.

    This trains each task alone, in one program. Gradient balancers have nothing to weigh.

    Attributes:
      features: width of each layer after the backbone.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = TaskSpecific((4,)), Copies(own=jnp.zeros((2, 2, 6)))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    features: tuple[int, ...] = ()
    dropout: float = 0.0

    def copies(self, tasks: Sequence[str]) -> Copies:
        """Returns one copy per task."""
        return Copies(own=len(tasks))

    @nn.compact
    def __call__(
        self, x: Copies, tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps own copies [t b d] to {task: [b features[-1]]}."""
        expert = Expert(self.features, self.dropout, name="own_layers")
        return split_by_task(apply_experts(expert, len(tasks), x.own, train=train), tasks)
