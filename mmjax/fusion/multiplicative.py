"""Fusion by multiplicative interactions: one modality generates the linear map of another."""

from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from mmjax.fusion.pooling import pool_modalities
from mmjax.types import Tokens


class Multiplicative(nn.Module):
    """f(x, z) = zᵀ𝐖x + Ux + Vz + b, a generated matrix (zᵀ𝐖 + U) and bias (Vz + b) for x.

    More than two modalities are folded: f(f(x_1, x_2), x_3), in the order of their names. The form
    says which part of the generated matrix is free: "matrix" all of it, "vector" its diagonal,
    "scalar" one factor; the last two act on a projection Ux. A missing modality gives zeros, which
    leaves the part of f that is linear in the other.

    Source: Jayakumar et al., ICLR 2020, section 3 and table 1.

    Attributes:
      width: size of the result.
      form: "matrix", "vector" or "scalar".

    Example:
      >>> import functools, jax, jax.numpy as jnp
      >>> image = Tokens(jnp.ones((2, 1, 3)), jnp.ones((2, 1), bool))
      >>> text = Tokens(jnp.ones((2, 4, 5)), jnp.ones((2, 4), bool))
      >>> tokens = {"image": image, "text": text}
      >>> fusion = Multiplicative(4, "vector")
      >>> call = functools.partial(fusion.init_with_output, train=False)
      >>> fused, _ = jax.eval_shape(call, jax.random.key(0), tokens)
      >>> fused.shape
      (2, 4)
    """

    width: int
    form: Literal["matrix", "vector", "scalar"] = "matrix"

    def __post_init__(self) -> None:
        if self.form not in ("matrix", "vector", "scalar"):
            raise ValueError(
                f"Multiplicative.form is {self.form!r}; it must be 'matrix', 'vector' or 'scalar'."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"]:
        """Maps {m: [b n d_m]} to [b width]."""
        del train
        (first, x), *others = pool_modalities(tokens).items()
        fused = x.values
        if not others:
            return nn.Dense(self.width, name=f"linear_{first}")(fused)
        for m, z in others:
            fused = self.interact(fused, z.values, m)
        return fused

    def interact(
        self, x: Float[Array, "b d"], z: Float[Array, "b e"], name: str
    ) -> Float[Array, "b o"]:
        """Computes f(x, z)."""
        linear = nn.Dense(self.width, use_bias=False, name=f"linear_before_{name}")(x)
        shift = nn.Dense(self.width, name=f"shift_{name}")(z)
        if self.form == "matrix":
            init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=(0, 1))
            tensor = self.param(f"tensor_{name}", init, (z.shape[1], x.shape[1], self.width))
            # zᵀ𝐖 first: it is smaller than the outer product of x and z.
            matrix = z @ tensor.reshape(z.shape[1], -1).astype(z.dtype)
            of_x = x[:, :, None] * matrix.reshape(*x.shape, self.width)
            return of_x.sum(axis=1) + linear + shift
        size = self.width if self.form == "vector" else 1
        # z^T W x with a diagonal matrix (one factor per entry) or a multiple of the identity (one
        # in all).
        factor = nn.Dense(size, use_bias=False, name=f"factor_{name}")(z)
        return factor * linear + linear + shift
