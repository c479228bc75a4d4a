"""Multi-task attention network: each task masks the layers of one shared trunk."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.layers.dropout import Dropout
from mmjax.sharing.copies import copied
from mmjax.sharing.experts import split_by_task


class MTAN(nn.Module):
    """A shared trunk on the backbone, and a soft mask of every task on every block of it.

    A block of the trunk is u_j = ReLU(Dense(p_{j-1})), p_j = ReLU(Dense(u_j)); the first,
    u_0 = p_0, is the fused representation itself. A task takes y_j = a_j ⊙ p_j with the mask
    a_j = σ(g_j(ReLU(h_j([u_j; ReLU(f_j(y_{j-1}))])))), where f, g, h are Dense layers of its own,
    and its head gets the last y. These are the paper's modules with Dense layers for convolutions.

    Source: Liu et al., CVPR 2019 (arXiv:1803.10704), section 3.2.

    Attributes:
      features: width of each block of the trunk; without any, only the fused vector is masked.
      dropout: rate after every block, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = MTAN((4,)), jnp.zeros((2, 6))
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
        # One module with stacked parameters per level: all tasks' masks run as one batch.
        mask_first = copied(lambda mask, *args: mask(*args), len(tasks), None)
        mask_next = copied(lambda mask, *args: mask(*args), len(tasks), (None, None, 0))
        y = mask_first(_AttentionMask(name="own_mask_0"), x, x)
        for i, width in enumerate(self.features, start=1):
            # u and p are the layers of the shared block; the mask reads u and multiplies p.
            u = nn.relu(nn.Dense(width, name=f"first_{i}")(x))
            x = nn.relu(nn.Dense(width, name=f"second_{i}")(u))
            x = Dropout(self.dropout)(x, train=train)
            y = mask_next(_AttentionMask(name=f"own_mask_{i}"), u, x, y)
        return split_by_task(y, tasks)


class _AttentionMask(nn.Module):
    """One task's attention to one block."""

    @nn.compact
    def __call__(
        self,
        u: Float[Array, "b d"],
        p: Float[Array, "b d"],
        before: Float[Array, "b e"] | None = None,
    ) -> Float[Array, "b d"]:
        """Returns block p under the mask made of u and of the task's y of the block before."""
        width = p.shape[-1]
        if before is not None:
            u = jnp.concatenate([u, nn.relu(nn.Dense(width, name="before")(before))], axis=-1)
        hidden = nn.relu(nn.Dense(width, name="hidden")(u))
        return nn.sigmoid(nn.Dense(width, name="mask")(hidden)) * p
