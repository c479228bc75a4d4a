"""Hard parameter sharing."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.layers.dropout import Dropout


class HardSharing(nn.Module):
    """One trunk for all tasks: Dense + ReLU per width, the same features for every head.

    Source: Caruana, "Multitask learning", Machine Learning 1997.

    Attributes:
      features: width of each layer; without any, heads get the fused representation itself.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = HardSharing((4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    features: tuple[int, ...] = ()
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d] to {task: [b features[-1]]}."""
        for i, width in enumerate(self.features):
            x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
            x = Dropout(self.dropout)(x, train=train)
        # The same array for every task, which `wrt="features"` relies on.
        return dict.fromkeys(tasks, x)
