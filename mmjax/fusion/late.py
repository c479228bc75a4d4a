"""Late fusion: every modality makes a prediction of its own, and the predictions are averaged."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.pooling import Pooled, concatenate_pooled, pool_modalities
from mmjax.types import Branches, Tokens


class Late(nn.Module):
    """Dense + ReLU per modality, and the weights that average the modalities' predictions.

    An example without any modality has weights of zero.

    Attributes:
      width: size of every branch.
      learned: False averages over the present modalities; True weights them by the softmax, over
        those present, of one learned logit per modality.
      joint: whether there is one branch more, "joint", of the concatenation of all modalities: the
        pseudo-view of Han et al., TPAMI 2022 (arXiv:2204.11423). It has all examples that have any
        modality; missing ones are zeros in it.

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> tokens = {"image": image, "text": text}
      >>> call = functools.partial(Late(8).init_with_output, train=False)
      >>> branches, _ = jax.jit(call)(jax.random.key(0), tokens)
      >>> branches.values["text"].shape, branches.weights["text"].tolist()
      ((2, 8), [0.5, 0.0])
    """

    width: int
    learned: bool = False
    joint: bool = False

    @property
    def extra_branches(self) -> tuple[str, ...]:
        """Names of the branches besides the modalities."""
        return ("joint",) if self.joint else ()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Branches:
        """Maps {m: [b n d_m]} to one branch [b width] and one weight [b] per modality."""
        del train
        pooled = pool_modalities(tokens)
        if self.joint:
            pooled["joint"] = Pooled(*concatenate_pooled(pooled))
        values, logits, present = {}, [], []
        for m, x in pooled.items():
            values[m] = nn.relu(nn.Dense(self.width, name=f"project_{m}")(x.values))
            logits.append(self.logit(m))
            present.append(x.present)
        dtype = next(iter(values.values())).dtype
        # The weights are per example, since modalities that it lacks must not take part.
        weights = _masked_softmax(jnp.stack(logits).astype(dtype), jnp.stack(present))
        return Branches(values, dict(zip(pooled, weights, strict=True)))

    def logit(self, modality: str) -> Float[Array, ""]:
        """Returns the modality's learned logit, or 0, which makes the softmax a mean."""
        if not self.learned:
            return jnp.zeros(())
        return self.param(f"logit_{modality}", nn.initializers.zeros, ())


def _masked_softmax(logits: Float[Array, " m"], present: Bool[Array, "m b"]) -> Float[Array, "m b"]:
    """Computes the softmax over each example's present modalities; zeros if there is none."""
    lowest = jnp.finfo(logits.dtype).min  # finite: -inf only would make NaN
    share = nn.softmax(jnp.where(present, logits[:, None], lowest), axis=0)
    return jnp.where(present, share, 0)
