"""Layers of convolution, group norm, pooling and ReLU, as one function of their parameters."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.kernels.batch_last import flatten_examples, to_batch_last
from mmjax.kernels.conv2d import (
    Padding,
    conv2d_by_patches,
    conv2d_recomputing_patches,
    count_fitting_cache,
    count_lost_pixels,
    plain_conv2d,
)
from mmjax.kernels.conv2d_in_blocks import (
    compute_block_window,
    convolve_in_blocks,
    is_faster_in_blocks,
)
from mmjax.kernels.group_norm import NormParameters, group_norm
from mmjax.kernels.max import max_over_axis, max_pool_2x2
from mmjax.kernels.portable import choose_by_platform

MIN_CHUNK = 16  # images at a time: as many floats as the widest registers hold


class ConvLayer(NamedTuple):
    """The parameters of one layer of `apply_conv_layers`."""

    kernel: Float[Array, "k l c o"]
    bias: Float[Array, " o"]
    norm: NormParameters | None = None


def apply_conv_layers(
    x: Float[Array, "b h w c"], layers: Sequence[ConvLayer], padding: Padding = "SAME"
) -> Float[Array, "b d"]:
    """Applies per layer a convolution, a group norm if given, 2x2 max pooling and ReLU; flattens.

    On CPU a large batch goes through all layers in chunks whose patches stay in the cache, and the
    backward pass recomputes the patches, which is faster than to keep them. (With norms, which need
    passes of their own, it would be slower.)
    """
    on_cpu = functools.partial(_apply_in_chunks, padding=padding)
    elsewhere = functools.partial(_apply_to_batch, padding=padding, conv=plain_conv2d)
    return choose_by_platform(x, layers, cpu=on_cpu, plain=elsewhere)


def _apply_to_batch(
    x: Float[Array, "b h w c"],
    layers: Sequence[ConvLayer],
    padding: Padding,
    conv: Callable[..., Array],
) -> Float[Array, "b d"]:
    x = to_batch_last(x)
    for layer in layers:
        x = _apply_layer(x, layer, padding, conv)
    return flatten_examples(x)


def _apply_in_chunks(
    x: Float[Array, "b h w c"], layers: Sequence[ConvLayer], padding: Padding
) -> Float[Array, "b d"]:
    batch = len(x)
    size = count_fitting_cache(batch, count_patch_bytes(x.shape, layers, padding), least=MIN_CHUNK)
    if batch < 2 * size or any(layer.norm for layer in layers):
        return _apply_to_batch(x, layers, padding, conv2d_by_patches)
    of_chunk = functools.partial(
        _apply_to_batch, layers=layers, padding=padding, conv=conv2d_recomputing_patches
    )
    # Padded images are computed and dropped; `lax.map` needs chunks of one size.
    chunks = jnp.pad(x, [(0, -batch % size), (0, 0), (0, 0), (0, 0)])
    y = jax.lax.map(of_chunk, chunks.reshape(-1, size, *x.shape[1:]))
    return y.reshape(len(chunks), -1)[:batch]


def _apply_layer(
    x: Float[Array, "c h w b"], layer: ConvLayer, padding: Padding, conv: Callable[..., Array]
) -> Float[Array, "o p q b"]:
    """Applies one layer with the given convolution.

    ReLU comes after pooling, which gives the same as before it and has a quarter of the work; so
    does the bias, unless a norm takes it.
    """
    x, kernel, bias, *norm = nn.dtypes.promote_dtype(
        x, layer.kernel, layer.bias, *(layer.norm or ())
    )
    in_blocks = conv is not plain_conv2d and is_faster_in_blocks(kernel.shape)
    if norm and in_blocks:  # The norm sees the odd rows and columns that pooling drops.
        sides = zip(x.shape[1:3], kernel.shape[:2], strict=True)
        in_blocks = all(
            (length - count_lost_pixels(side, padding)) % 2 == 0 for length, side in sides
        )
    y = convolve_in_blocks(x, kernel, padding, conv) if in_blocks else conv(x, kernel, padding)
    if norm:
        y = group_norm(y, NormParameters(*norm), bias)
    y = max_over_axis(y, axis=1) if in_blocks else max_pool_2x2(y)
    return nn.relu(y if norm else y + bias[:, None, None, None])


def count_patch_bytes(shape: Sequence[int], layers: Sequence[ConvLayer], padding: Padding) -> int:
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
        height, width = (
            height - count_lost_pixels(rows, padding),
            width - count_lost_pixels(columns, padding),
        )
        if is_faster_in_blocks(kernel.shape):
            rows, columns = compute_block_window(kernel.shape)
        patches = rows * columns * channels * height * width * kernel.dtype.itemsize
        # Pooling halves the sides for the next layer.
        most, height, width = max(most, patches), height // 2, width // 2
    return most
