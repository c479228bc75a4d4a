"""Fusion by experts that specialize in patterns of missing modalities."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.fusion.pooling import encode_patterns, pool_modalities, project_modalities
from mmjax.kernels.attention import TransformerLayer, check_heads_divide_width
from mmjax.types import Tokens


class PatternExperts(nn.Module):
    """Flex-MoE: a bank fills in, the modalities attend, and a sparse mixture of experts follows.

    Each modality becomes one vector; a missing one is a learned row of its bank for the pattern of
    the present ones. After a transformer layer over the M vectors, each gets z + Σ_k g_k E_k(norm
    z), where g is the softmax over the `top` largest logits of a linear router and E_k is Dense +
    GELU + Dense. Examples with all modalities train the router freely, so that experts generalize.
    For the others the cross-entropy of the router against the expert of their pattern is sown as
    "router" with the mask of these examples, so that experts specialize:
    `auxiliary.Sown("fusion", "router")` is the loss. The result is [z_1; ...; z_M].

    All experts are computed, and the gates choose. The paper's loss that balances the load of the
    experts is not included.

    Source: Yun et al., "Flex-MoE: modeling arbitrary modality combination via the flexible
    mixture-of-experts", NeurIPS 2024 (arXiv:2410.08245), section 3.

    Attributes:
      width: size of the vectors; the result has M width entries.
      experts: number of experts; None is one per pattern, 2^M - 1. With fewer, patterns share.
      top: number of experts per vector.
      heads: number of attention heads.

    Example:
      >>> import functools
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.array([[True] * 4, [False] * 4]))
      >>> fusion = PatternExperts(8, heads=2)
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), {"image": image, "text": text})
      >>> fused.shape
      (2, 16)
    """

    width: int
    experts: int | None = None
    top: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        check_heads_divide_width(self.width, self.heads)
        for name, value in (("experts", self.experts), ("top", self.top)):
            if value is not None and value < 1:
                raise ValueError(f"PatternExperts.{name} is {value}; it must be at least 1.")
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b (M width)]; zeros if no modality is present."""
        projected = project_modalities(pool_modalities(tokens), self.width)
        present = jnp.stack([x.present for x in projected.values()])
        pattern, count = encode_patterns(present)
        init, shape = nn.initializers.normal(0.02), (len(projected), count, self.width)
        banks = self.param("banks", init, shape)[:, pattern]
        filled = [
            jnp.where(x.present[:, None], x.values, row.astype(x.values.dtype))
            for x, row in zip(projected.values(), banks, strict=True)
        ]
        z = Tokens(jnp.stack(filled, axis=1), jnp.ones(present.T.shape, bool))
        z = TransformerLayer(self.heads, name="mix")(z, train=train)
        values = z.values + self.apply_experts(nn.LayerNorm(name="norm")(z.values), pattern, count)
        flat = values.reshape(*values.shape[:1], len(projected) * self.width)
        return jnp.where(present.any(axis=0)[:, None], flat, 0)

    def apply_experts(
        self, x: Float[Array, "b m d"], pattern: Int[Array, " b"], patterns: int
    ) -> Float[Array, "b m d"]:
        """Applies the chosen experts, and sows the router's loss."""
        experts = patterns - 1 if self.experts is None else self.experts
        logits = nn.Dense(experts, use_bias=False, name="gate")(x)
        # Expert 0 is that of complete examples; the patterns between none and all share the others.
        special = 1 + jnp.maximum(pattern - 1, 0) % max(experts - 1, 1)
        is_incomplete = (pattern > 0) & (pattern < patterns - 1)
        chosen = jnp.where(is_incomplete, jnp.minimum(special, experts - 1), 0)
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
        cross_entropy = -jnp.take_along_axis(log_p, chosen[:, None, None], axis=-1)[..., 0]
        mask = jnp.broadcast_to(is_incomplete[:, None], cross_entropy.shape)
        self.sow("intermediates", "router", (cross_entropy, mask))

        lowest = jax.lax.top_k(logits, min(self.top, experts))[0][..., -1:]
        gates = nn.softmax(jnp.where(logits >= lowest, logits, -jnp.inf))
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=(0,))
        width, hidden = self.width, 2 * self.width
        inner = self.param("experts_in", init, (experts, width, hidden)).astype(x.dtype)
        outer = self.param("experts_out", init, (experts, hidden, width)).astype(x.dtype)
        outputs = jnp.einsum(
            "bmeh,ehd->bmed", nn.gelu(jnp.einsum("bmd,edh->bmeh", x, inner)), outer
        )
        return (gates[..., None] * outputs).sum(axis=2)
