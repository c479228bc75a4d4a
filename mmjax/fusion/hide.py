"""Hiding random modalities of training examples from a fusion."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mmjax.types import Branches, Tokens


def draw_hidden(
    key: Key[Array, ""], present: Bool[Array, "m b"], rate: float
) -> Bool[Array, "m b"]:
    """Draws which present modalities to hide, each at the rate, but never all of an example.

    If all would be hidden, one of them stays, each equally likely.

    Example:
      >>> hidden = draw_hidden(jax.random.key(0), jnp.ones((3, 5), bool), rate=1.0)
      >>> hidden.sum(axis=0).tolist()
      [2, 2, 2, 2, 2]
    """
    # Absent modalities get -1, so that the largest draw, which is never hidden, is a present one's.
    draws = jnp.where(present, jax.random.uniform(key, present.shape), -1.0)
    return present & (draws < rate) & (draws < draws.max(axis=0, keepdims=True))


def check_hiding_rate(name: str, rate: float) -> None:
    """Raises ValueError unless a rate is between 0 and 1."""
    if not 0 <= rate <= 1:
        raise ValueError(f"{name}.rate is {rate}; it must be between 0 and 1.")


class Hide(nn.Module):
    """Hides random modalities of training examples from another fusion.

    `Experiment.modality_dropout` drops modalities before the step, from objectives too; this one
    drops them after the encoders, so that objectives still see the whole example, such as the
    complete input of the teacher of `auxiliary.MarginDistillation`.

    Attributes:
      fusion: the other fusion.
      rate: at which each present modality is hidden; the last one never is.

    Example:
      >>> import functools
      >>> from mmjax.fusion import Concat
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> fusion = Hide(Concat(), rate=0.5)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), {"image": image, "text": text})
      >>> fused.shape
      (2, 8)
    """

    fusion: nn.Module
    rate: float = 0.5

    def __post_init__(self) -> None:
        check_hiding_rate("Hide", self.rate)
        super().__post_init__()

    @property
    def extra_branches(self) -> tuple[str, ...]:
        """Names of the branches that the other fusion adds."""
        return tuple(getattr(self.fusion, "extra_branches", ()))

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"] | Branches:
        """Maps {m: [b n d_m]} to what the other fusion returns; draws with the key "dropout"."""
        if train and self.rate:
            names = sorted(tokens)
            present = jnp.stack([tokens[m].mask.any(axis=1) for m in names])
            hidden = draw_hidden(self.make_rng("dropout"), present, self.rate)
            tokens = {
                m: Tokens(tokens[m].values, tokens[m].mask & ~hidden[i][:, None])
                for i, m in enumerate(names)
            }
        fused: Array | Branches = self.fusion(tokens, train=train)
        # Values that the other fusion sows are found as those of this one.
        for name, value in self.fusion.variables.get("intermediates", {}).items():
            if isinstance(value, tuple):
                self.sow("intermediates", name, value[0])
        return fused
