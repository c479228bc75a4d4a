"""Refiner: prediction of each modality's representation from the fused one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums, get_fused_vector, normalize_rows, select_modalities
from mmjax.auxiliary.decoding import MLPDecoder
from mmjax.fusion.pooling import pool
from mmjax.types import Batch, Intermediates


def cosine_distance(a: Float[Array, "b d"], b: Float[Array, "b d"]) -> Float[Array, " b"]:
    """Computes 1 - cos(a_i, b_i), from 0 to 2; 1 if a vector is all zeros.

    Example:
      >>> a, b = jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([[3.0, 0.0], [0.0, 1.0]])
      >>> cosine_distance(a, b).tolist()
      [0.0, 1.0]
    """
    return jnp.maximum(1 - (normalize_rows(a) * normalize_rows(b)).sum(axis=1), 0)


class RefNet(nn.Module):
    """The refiner fusion network's loss: 1 - cos(MLP_m(fused vector), mean token of modality m).

    It is the mean over examples and their present modalities. The modality's representation counts
    as a constant, or the encoders could make it predictable by making it poor; they learn through
    the fusion. The loss is at least 0. The paper's additional contrastive loss, which needs labels,
    is not part of it.

    Source: Sankaran et al. 2021 (arXiv:2104.03435).

    Attributes:
      hidden: widths of every MLP.
      modalities: the predicted modalities; None is all.

    Example:
      >>> import functools
      >>> from mmjax.types import Tokens
      >>> x, present = jnp.ones((4, 3)), jnp.ones(4, bool)
      >>> tokens = {"image": Tokens(x[:, None], present[:, None])}
      >>> seen = Intermediates(tokens, jnp.ones((4, 5)), {}, {"fusion": {}, "sharing": {}})
      >>> batch = Batch({"image": x}, {"image": present}, {}, {}, {})
      >>> key, options = jax.random.key(1), {"train": False, "gather": lambda x: x}
      >>> objective = RefNet(hidden=(4,))
      >>> call = functools.partial(objective.init_with_output, batch=batch, **options)
      >>> (total, count), _ = jax.jit(call)(key, seen, {})
      >>> float(count)  # examples and modalities
      4.0
    """

    hidden: tuple[int, ...] = (128,)
    modalities: tuple[str, ...] | None = None

    @nn.compact
    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns total and count over this device's examples and their modalities."""
        del predictions, batch, train, gather
        fused, totals, counts = get_fused_vector(self, seen), [], []
        for m in select_modalities(self, seen, self.modalities):
            target, present = pool(seen.tokens[m])
            decode = MLPDecoder(target.shape[1:], self.hidden, name=f"refine_{m}")
            # The target is a constant: otherwise encoders could lower the loss by collapsing.
            distance = cosine_distance(decode(fused), jax.lax.stop_gradient(target))
            totals.append(jnp.where(present, distance, 0).sum())
            counts.append(present.sum().astype(jnp.float32))
        return jnp.stack(totals).sum(), jnp.stack(counts).sum()
