"""Images as patches: normalized pixels, patch embeddings and interpolated position tables."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mmjax.encoders.mlp import to_float
from mmjax.kernels.attention import dot_general_2d
from mmjax.pretrained.positions import make_cubic_matrix
from mmjax.types import Shape

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def normalize_pixels(
    x: Num[Array, "b h w c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "b h w c"]:
    """Brings uint8 pixels to [0, 1], takes floats as they are, and standardizes each channel.

    Example:
      >>> normalize_pixels(jnp.full((1, 1, 1, 3), 255, jnp.uint8), HALF, HALF).ravel().tolist()
      [1.0, 1.0, 1.0]
    """
    shift, scale = (jnp.asarray(v, jnp.float32)[None, None, None] for v in (mean, std))
    return (to_float(x) - shift) / scale


def cast_to_kernel(*arrays: Any, dtype: Any = None, inexact: bool = True) -> list[Any]:
    """Casts the input of a convolution to the type of its kernel, as its `promote_dtype`.

    Flax would cast a bfloat16 kernel to the float32 of normalized pixels.

    Args:
      arrays: the input, the kernel, and the bias or None.
      dtype: not used.
      inexact: not used.

    Example:
      >>> cast_to_kernel(jnp.zeros(2), jnp.zeros(2, jnp.bfloat16), None)[0].dtype
      dtype(bfloat16)
    """
    del dtype, inexact
    x, kernel, bias = arrays
    return [x.astype(kernel.dtype), kernel, bias]


def check_image(shape: Shape, patch: int, channels: int, encoder: str) -> None:
    """Raises ValueError unless the shape is [b h w channels] with at least one whole patch."""
    if len(shape) != 4 or shape[3] != channels or min(shape[1:3]) < patch:
        raise ValueError(
            f"{encoder} needs images [b h w {channels}] of at least {patch}x{patch} pixels but got "
            f"shape {shape}; read them by `Image(..., size=..., channels={channels})`."
        )


class ImageEmbedding(nn.Module):
    """Turns images into tokens: class token, registers, then patches, row after row.

    Pixels at the end that fill no patch are left out. All but the registers have positions.

    Attributes:
      width: of the tokens.
      patch: side of the square patches, in pixels.
      image: side of the images that the table of positions was made for, in pixels.
      use_bias: whether the projection of the patches has a bias.
      class_token: whether there is a class token, with the first position.
      registers: number of further learned tokens.
      antialias: as in `interpolate_grid`, for images of another size than `image`.

    Example:
      >>> module, images = ImageEmbedding(width=5, patch=4, image=8), jnp.zeros((2, 9, 12, 3))
      >>> jax.eval_shape(module.init_with_output, jax.random.key(0), images)[0].shape
      (2, 7, 5)
    """

    width: int
    patch: int
    image: int
    use_bias: bool = True
    class_token: bool = True
    registers: int = 0
    antialias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Maps images [b h w c] to tokens [b n width], in the type of the parameters."""
        b, h, w, _ = x.shape
        rows, columns, init = h // self.patch, w // self.patch, nn.initializers.normal(0.02)
        first = int(self.class_token)
        count = first + (self.image // self.patch) ** 2
        table = self.param("positions", init, (count, self.width))
        positions = interpolate_grid(table[first:], rows, columns, antialias=self.antialias)
        special = []
        if self.class_token:
            special.append(self.param("class_token", init, (1, self.width)) + table[:1])
        if self.registers:
            special.append(self.param("registers", init, (self.registers, self.width)))
        special = [jnp.broadcast_to(y[None], (b, *y.shape)) for y in special]
        return jnp.concatenate([*special, self._project_patches(x) + positions[None]], axis=1)

    def _project_patches(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        """Computes a convolution with strides of its kernel's size, as one matrix product."""
        b, h, w, c = x.shape
        side, rows, columns = self.patch, h // self.patch, w // self.patch
        kernel_shape = (side, side, c, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal((0, 1, 2)), kernel_shape)
        x = x[:, : rows * side, : columns * side].astype(kernel.dtype)
        x = x.reshape(b, rows, side, columns, side, c).swapaxes(2, 3)
        y = dot_general_2d(x, kernel, (((3, 4, 5), (0, 1, 2)), ((), ())))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            y = y + bias[None, None, None]
        return y.reshape(b, rows * columns, self.width)


def interpolate_grid(
    table: Float[Array, "n d"], rows: int, columns: int, *, antialias: bool = False
) -> Float[Array, "m d"]:
    """Resizes a table of positions on a square grid to rows * columns positions.

    Cubic interpolation with the kernel of Keys (1981): a = -0.75 and the border repeated, as in
    PyTorch's `interpolate(mode="bicubic")`; with `antialias` a = -0.5 and a kernel that widens
    where the grid shrinks, as there with `antialias=True`.

    Args:
      table: one vector per position of the square grid, row after row.
      rows: of the new grid.
      columns: of the new grid.
      antialias: whether to smooth before shrinking.

    Example:
      >>> interpolate_grid(jnp.arange(4.0)[:, None], 2, 2).ravel().tolist()
      [0.0, 1.0, 2.0, 3.0]
    """
    side = round(len(table) ** 0.5)
    if (side, side) == (rows, columns):
        return table
    grid = table.astype(jnp.float32).reshape(side, side, -1)
    if antialias:
        grid = jax.image.resize(grid, (rows, columns, grid.shape[-1]), "cubic", precision="highest")
    else:
        down, across = (
            jnp.asarray(make_cubic_matrix(side, size), jnp.float32) for size in (rows, columns)
        )
        grid = jnp.einsum("ij,kl,jld->ikd", down, across, grid, precision="highest")
    return grid.reshape(rows * columns, -1).astype(table.dtype)
