"""Hard parameter sharing."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.dropout import Dropout


class HardSharing(nn.Module):
    """One trunk for all tasks: Dense + ReLU for each width, the same features for every head.

    Source: Caruana, "Multitask learning", Machine Learning 1997.

    Attributes:
      features: width of each layer; none hands the fused representation on as it is.
      dropout: rate after every layer, while training.
    """

    features: tuple[int, ...] = ()
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """[b d] to {task: [b features[-1]]}."""
        for i, width in enumerate(self.features):
            x = nn.relu(nn.Dense(width, name=f"dense_{i}")(x))
            x = Dropout(self.dropout)(x, train=train)
        return dict.fromkeys(tasks, x)
