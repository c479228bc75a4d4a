"""Fusion of features that modalities share and features that are specific to each."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.fusion.pooling import mean_over_present, pool_modalities, project_modalities
from mmjax.types import Tokens


class ShaSpec(nn.Module):
    """Shared and specific features, where a missing modality gets the mean of the shared ones.

    With h_m = W_m x_m, s_m = relu(S h_m) of one layer S for all modalities and p_m = relu(P_m h_m)
    of a layer of its own, a present modality gives f_m = s_m + C [s_m; p_m] and a missing one the
    mean of s over the present; the result is [f_1; ...; f_M]. All layers have a bias. (s_m, p_m,
    present) of each modality are sown as "shared_specific", for `auxiliary.ShaSpecLosses`.

    Source: Wang et al., "Multi-modal learning with missing modality via shared-specific feature
    modelling", CVPR 2023 (arXiv:2307.14126), section 3. Its encoders are networks on inputs of one
    size; here S and P_m follow the model's encoders, whose outputs W_m brings to one size. The
    authors' code takes the shared features of the first present modality instead of the mean.

    Attributes:
      width: size of the features; the result has M width entries.

    Example:
      >>> import functools, jax
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = ShaSpec(4)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 8)
    """

    width: int

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b (M width)]; zeros if no modality is present."""
        del train
        shared_layer, compose = (nn.Dense(self.width, name=n) for n in ("shared", "compose"))
        shared, composed, present, sown = [], [], [], {}
        for m, (h, has) in project_modalities(pool_modalities(tokens), self.width).items():
            s = nn.relu(shared_layer(h))
            p = nn.relu(nn.Dense(self.width, name=f"specific_{m}")(h))
            shared.append(s)
            composed.append(s + compose(jnp.concatenate([s, p], axis=-1)))
            present.append(has)
            sown[m] = (s, p, has)
        self.sow("intermediates", "shared_specific", sown)
        mean = mean_over_present(jnp.stack(shared), jnp.stack(present))
        features = [
            jnp.where(has[:, None], f, mean) for f, has in zip(composed, present, strict=True)
        ]
        return jnp.concatenate(features, axis=-1)
