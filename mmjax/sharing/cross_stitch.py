"""Cross-stitch networks: one column of layers per task, mixed after every layer."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.sharing.copies import Copies
from mmjax.sharing.experts import Expert, apply_experts, check_expert_counts, split_by_task


class CrossStitch(nn.Module):
    """Dense + ReLU in each task's column, then x_t <- Σ_s α_ts x_s; repeated per width.

    There is one α [t t] per layer. It starts near the identity, so that the columns learn different
    features before they are mixed.

    Source: Misra et al., CVPR 2016 (arXiv:1604.03539), section 3.

    Attributes:
      features: width of each layer.
      backbones: whether each column begins with a copy of the whole backbone, mixed after it.
      keep: initial weight α_tt of each column for itself; the others share the rest.
      dropout: rate after every layer, while training.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> sharing, x = CrossStitch((4,)), jnp.zeros((2, 6))
      >>> call = functools.partial(sharing.init_with_output, tasks=("a", "b"), train=False)
      >>> features, _ = jax.eval_shape(call, jax.random.key(0), x)
      >>> {task: value.shape for task, value in features.items()}
      {'a': (2, 4), 'b': (2, 4)}
    """

    features: tuple[int, ...] = ()
    backbones: bool = False
    keep: float = 0.9
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_expert_counts(self)
        super().__post_init__()

    def copies(self, tasks: Sequence[str]) -> Copies | None:
        """Returns one copy per column if `backbones`, else None."""
        return Copies(shared=len(tasks)) if self.backbones else None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"] | Copies, tasks: Sequence[str], *, train: bool
    ) -> dict[str, Float[Array, "b e"]]:
        """Maps [b d], or copies [t b d], to {task: [b features[-1]]}."""
        last = len(self.features)
        if isinstance(x, Copies):
            x = self.stitch(x.shared, "stitch" if last else "own_stitch")
        for i, width in enumerate(self.features, start=1):
            layer = Expert((width,), self.dropout, name=f"columns_{i}")
            x = apply_experts(layer, len(tasks), x, train=train)
            # A row of the last matrix reaches one task alone, so the row is that task's own.
            x = self.stitch(x, f"stitch_{i}" if i < last else "own_stitch")
        return split_by_task(x, tasks)

    def stitch(self, columns: Float[Array, "t b d"], name: str) -> Float[Array, "t b d"]:
        """Replaces every column by a mixture of all."""
        # x_t <- sum_s alpha_ts x_s, one number per pair of tasks, the same for all features.
        alpha = self.param(name, _initialize_near_identity, len(columns), self.keep)
        return jnp.einsum("ts,sbd->tbd", alpha.astype(columns.dtype), columns)


def _initialize_near_identity(key: Array, size: int, keep: float) -> Float[Array, "t t"]:
    """Initializes α_tt = keep; the rest of each row's sum of 1 is shared equally."""
    del key
    if size == 1:
        return jnp.ones((1, 1))
    # `keep` on the diagonal, the rest spread evenly, so that rows sum to 1.
    identity = jnp.eye(size)
    return keep * identity + (1 - keep) / (size - 1) * (1 - identity)
