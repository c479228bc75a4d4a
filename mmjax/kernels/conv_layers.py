"""Layers of convolution, group norm, pooling and ReLU, as one function of their parameters."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.batch_last import batch_last, flat
from mmjax.kernels.conv2d import (
    Padding,
    chunk_conv2d,
    fitting,
    lost,
    native_conv2d,
    patches_conv2d,
)
from mmjax.kernels.conv2d_in_blocks import block_window, blocks_conv2d, blocks_pay
from mmjax.kernels.group_norm import Scale, group_norm
from mmjax.kernels.max import largest, max_pool

MIN_CHUNK = 16  # images at a time: as many floats as the widest registers hold


class Layer(NamedTuple):
    """The parameters of one layer of `apply_conv_layers`."""

    kernel: Float[Array, "k l c o"]
    bias: Float[Array, " o"]
    norm: Scale | None = None


def tower(
    x: Float[Array, "b h w c"], layers: Sequence[Layer], padding: Padding = "SAME"
) -> Float[Array, "b d"]:
    """Applies per layer a convolution, a group norm if given, 2x2 max pooling and ReLU; flattens.

    On CPU a large batch goes through all layers in chunks whose patches stay in the cache, and the
    backward pass recomputes the patches, which is faster than to keep them. (With norms, which need
    passes of their own, it would be slower.)
    """
    on_cpu = functools.partial(_apply_in_chunks, padding=padding)
    elsewhere = functools.partial(_apply_to_batch, padding=padding, conv=native_conv2d)
    return jax.lax.platform_dependent(x, layers, cpu=on_cpu, default=elsewhere)


def _apply_to_batch(
    x: Float[Array, "b h w c"],
    layers: Sequence[Layer],
    padding: Padding,
    conv: Callable[..., Array],
) -> Float[Array, "b d"]:
    x = batch_last(x)
    for layer in layers:
        x = pooled(x, layer, padding, conv)
    return flat(x)


def _apply_in_chunks(
    x: Float[Array, "b h w c"], layers: Sequence[Layer], padding: Padding
) -> Float[Array, "b d"]:
    batch = len(x)
    size = fitting(batch, bytes_of_patches(x.shape, layers, padding), least=MIN_CHUNK)
    if batch < 2 * size or any(layer.norm for layer in layers):
        return _apply_to_batch(x, layers, padding, patches_conv2d)
    of_chunk = functools.partial(_apply_to_batch, layers=layers, padding=padding, conv=chunk_conv2d)
    chunks = jnp.pad(x, [(0, -batch % size), (0, 0), (0, 0), (0, 0)])
    y = jax.lax.map(of_chunk, chunks.reshape(-1, size, *x.shape[1:]))
    return y.reshape(len(chunks), -1)[:batch]


def pooled(
    x: Float[Array, "c h w b"], layer: Layer, padding: Padding, conv: Callable[..., Array]
) -> Float[Array, "o p q b"]:
    """Applies one layer with the given convolution.

    ReLU comes after pooling, which gives the same as before it and has a quarter of the work; so
    does the bias, unless a norm takes it.
    """
    x, kernel, bias, *norm = nn.dtypes.promote_dtype(
        x, layer.kernel, layer.bias, *(layer.norm or ())
    )
    in_blocks = conv is not native_conv2d and blocks_pay(kernel.shape)
    if norm and in_blocks:  # The norm sees the odd rows and columns that pooling drops.
        sides = zip(x.shape[1:3], kernel.shape[:2], strict=True)
        in_blocks = all((length - lost(side, padding)) % 2 == 0 for length, side in sides)
    y = blocks_conv2d(x, kernel, padding, conv) if in_blocks else conv(x, kernel, padding)
    if norm:
        y = group_norm(y, Scale(*norm), bias)
    y = largest(y, axis=1) if in_blocks else max_pool(y)
    return nn.relu(y if norm else y + bias[:, None, None, None])


def bytes_of_patches(shape: Sequence[int], layers: Sequence[Layer], padding: Padding) -> int:
    """Returns the bytes of one image's patches in the layer where they take most.

    Args:
      shape: of the images [b h w c].
      layers: the layers.
      padding: of the images.
    """
    _, height, width, _ = shape
    most = 0
    for kernel, *_ in layers:
        rows, columns, channels, _ = kernel.shape
        height, width = height - lost(rows, padding), width - lost(columns, padding)
        if blocks_pay(kernel.shape):
            rows, columns = block_window(kernel.shape)
        patches = rows * columns * channels * height * width * kernel.dtype.itemsize
        most, height, width = max(most, patches), height // 2, width // 2
    return most
