"""Fusion by a state that one module per modality updates."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_modalities
from mmjax.types import Tokens


class MultiModN(nn.Module):
    """MultiModN: a learned state passes through one module per present modality.

    s' = V_m relu(U_m [s; x_m]) for every present m, one after the other, from a learned s_0; a
    missing modality leaves the state as it is. While training the order is random, per example, so
    that no module learns to rely on its place; at test it is that of the names. The state after
    some modules is the state of an example that has no other modality, so that the paper's losses
    after every module are those of `modality_dropout`, and
    `mmjax.modalities.subsets.predict_from_subsets` gives the predictions after each.

    Source: Swamy et al., "MultiModN: multimodal, multi-task, interpretable modular networks",
    NeurIPS 2023 (arXiv:2309.14118), section 3.

    Attributes:
      width: size of the state.
      shuffle: whether the order is random while training.

    Example:
      >>> import functools
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = MultiModN(8)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int
    shuffle: bool = True

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; draws the order with the key "dropout"."""
        pooled = list(pool_modalities(tokens).items())
        # Layers are made once, since each is called once per turn.
        layers = {}
        for m, _ in pooled:
            read = nn.Dense(self.width, name=f"read_{m}")
            layers[m] = (read, nn.Dense(self.width, name=f"write_{m}"))
        initial = self.param("state", nn.initializers.normal(1.0), (self.width,))
        size, dtype = pooled[0][1].values.shape[0], pooled[0][1].values.dtype
        state = jnp.broadcast_to(initial.astype(dtype), (size, self.width))
        if not (train and self.shuffle):
            for m, x in pooled:
                state = jnp.where(x.present[:, None], _update(layers[m], state, x.values), state)
            return state
        present = jnp.stack([x.present for _, x in pooled])
        # Sorting uniform numbers gives a uniform permutation per example.
        order = jax.random.uniform(self.make_rng("dropout"), present.shape).argsort(axis=0)
        for turn in order:
            # Every module computes its update, and each example takes that of its own turn.
            updates = jnp.stack([_update(layers[m], state, x.values) for m, x in pooled])
            chosen = jnp.take_along_axis(updates, turn[None, :, None], axis=0)[0]
            has_turn = jnp.take_along_axis(present, turn[None], axis=0)[0]
            state = jnp.where(has_turn[:, None], chosen, state)
        return state


def _update(
    layers: tuple[nn.Dense, nn.Dense], state: Float[Array, "b d"], x: Float[Array, "b e"]
) -> Float[Array, "b d"]:
    """Computes V relu(U [s; x]) by the layers (U, V), both with a bias."""
    read, write = layers
    updated: Array = write(nn.relu(read(jnp.concatenate([state, x], axis=-1))))
    return updated
