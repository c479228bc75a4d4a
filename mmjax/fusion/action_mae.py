"""Fusion that reconstructs the modalities that an example lacks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.fusion.hide import check_hiding_rate, draw_hidden
from mmjax.fusion.pooling import pool_modalities, project_modalities
from mmjax.kernels.attention import TransformerStack, check_heads_divide_width
from mmjax.types import Tokens


class ActionMAE(nn.Module):
    """Reconstructs missing modalities by a small transformer with memory tokens.

    Each modality becomes one vector. While training, present ones are hidden at a rate. An encoder
    sees learned memory tokens and the vectors that are left; a decoder sees its outputs, with a
    mask token in place of every vector that is not, and predicts those. The result is the mean over
    all modalities, of which the missing ones are predicted. The mean squared error of each vector,
    whose target counts as a constant, is sown as "reconstruction" with the mask of the hidden ones:
    `auxiliary.Sown("fusion", "reconstruction")` is the loss.

    Source: Woo et al., "Towards good practices for missing modality robust action recognition",
    AAAI 2023 (arXiv:2211.13916), section 3.

    Attributes:
      width: size of the vectors and the result.
      memory: number of memory tokens.
      layers: number of layers of encoder and decoder each.
      heads: number of attention heads.
      rate: at which present modalities are hidden while training; the last one never is.

    Example:
      >>> import functools
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> fusion = ActionMAE(8, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), {"image": image, "text": text})
      >>> fused.shape
      (2, 8)
    """

    width: int
    memory: int = 1
    layers: int = 1
    heads: int = 4
    rate: float = 0.5

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        check_hiding_rate("ActionMAE", self.rate)
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]; draws with the key "dropout"."""
        projected = project_modalities(pool_modalities(tokens), self.width).values()
        values = jnp.stack([x.values for x in projected], axis=1)
        present = jnp.stack([x.present for x in projected])
        hidden = jnp.zeros_like(present)
        if train and self.rate:
            hidden = draw_hidden(self.make_rng("dropout"), present, self.rate)
        left = (present & ~hidden).T
        predicted = self.reconstruct(values, left)
        # The target is a constant: otherwise encoders could lower the loss by collapsing.
        error = ((predicted - jax.lax.stop_gradient(values)) ** 2).mean(axis=-1)
        self.sow("intermediates", "reconstruction", (error, hidden.T))
        completed = jnp.where(left[..., None], values, predicted)
        return jnp.where(present.any(axis=0)[:, None], completed.mean(axis=1), 0)

    def reconstruct(
        self, values: Float[Array, "b m d"], left: Bool[Array, "b m"]
    ) -> Float[Array, "b m d"]:
        """Predicts the vector of every modality from those that are left."""
        size, modalities, width = values.shape

        def learn(name: str, rows: int) -> Array:
            table = self.param(name, nn.initializers.normal(0.02), (rows, width))
            return table.astype(values.dtype)[None]

        def stack(name: str) -> TransformerStack:
            return TransformerStack(self.layers, self.heads, name=name)

        places = learn("places", modalities)
        memory = jnp.broadcast_to(learn("memory", self.memory), (size, self.memory, width))
        inputs = jnp.concatenate([memory, values + places], axis=1)
        mask = jnp.concatenate([jnp.ones((size, self.memory), bool), left], axis=1)
        encoded = stack("encoder")(Tokens(inputs, mask), train=False).values
        slots = jnp.where(left[..., None], encoded[:, self.memory :], learn("mask", 1))
        decoded = jnp.concatenate([encoded[:, : self.memory], slots + places], axis=1)
        everything = Tokens(decoded, jnp.ones(decoded.shape[:2], bool))
        outputs = stack("decoder")(everything, train=False).values[:, self.memory :]
        predicted: Array = nn.Dense(width, name="output")(outputs)
        return predicted
