"""Corruptions of images [height width channels]; see docs/robustness.md for units and levels.

Each factory takes the statistics of the modality and returns `(key, x, length, level) -> x`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mmjax.modalities.robustness.corruption import Corruption, Level, draw_mask, restore_type
from mmjax.modalities.robustness.input_statistics import InputStatistics, expand_features

_Pixels = Float[Array, "h w c"]


def add_pixel_noise(statistics: InputStatistics, scale: float = 0.5) -> Corruption:
    """Adds normal noise of standard deviation `scale` · level ranges, then clips to the range.

    Example:
      >>> import numpy as np
      >>> from mmjax.data.dataset import Modality
      >>> from mmjax.modalities.robustness.input_statistics import measure_values
      >>> images = np.zeros((2, 4, 4, 1), np.uint8)
      >>> noise = add_pixel_noise(measure_values(images, Modality((4, 4, 1))))
      >>> noise(jax.random.key(0), jnp.asarray(images[0]), None, jnp.float32(1)).dtype.name
      'uint8'
    """
    low, high = _get_range(statistics)

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        noise = jax.random.normal(key, x.shape) * (high - low)
        return jnp.clip(x + scale * level * noise, low, high)

    return _corrupt_pixels(change)


def add_salt_and_pepper(statistics: InputStatistics) -> Corruption:
    """Makes each pixel, with probability `level`, black or white in all channels."""
    low, high = _get_range(statistics)

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        where_key, color_key = jax.random.split(key)
        shape = (*x.shape[:2], 1)
        color = jnp.where(jax.random.bernoulli(color_key, 0.5, shape), high, low)
        return jnp.where(draw_mask(where_key, level, shape), color, x)

    return _corrupt_pixels(change)


def blur_image(statistics: InputStatistics, side_share: float = 0.125) -> Corruption:
    """Blurs by a normal distribution of standard deviation `side_share` · level shorter sides.

    Only pixels of the image are averaged: beyond the border their weights are normalized.
    """

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        # A standard deviation of 0 would divide by 0; of 1e-3 pixels it blurs nothing.
        sigma = jnp.maximum(side_share * level * min(x.shape[:2]), 1e-3)
        rows, columns = (_make_blur_matrix(size, sigma) for size in x.shape[:2])
        # Products in bfloat16 or TF32 would change the image even at level 0.
        precision = jax.lax.Precision.HIGHEST
        return jnp.einsum("ih,hwc,jw->ijc", rows, x, columns, precision=precision)

    return _corrupt_pixels(change)


def reduce_contrast(statistics: InputStatistics) -> Corruption:
    """Moves each pixel by the share `level` towards the mean of its channel in the image."""

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        return x + level * (x.mean(axis=(0, 1), keepdims=True) - x)

    return _corrupt_pixels(change)


def occlude_rectangle(statistics: InputStatistics) -> Corruption:
    """Covers a rectangle of the image's proportions and the share `level` of its area.

    Its place is random inside of the image; the covered pixels get the mean of the training split.
    DeVries and Taylor, arXiv:1708.04552 (cutout).
    """
    mean = expand_features(statistics.mean, 3)

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        covers = []
        for axis_key, size in zip(jax.random.split(key), x.shape[:2], strict=True):
            # The share √level of each side covers the share `level` of the area.
            width = jnp.round(jnp.sqrt(level) * size).astype(jnp.int32)
            start = jax.random.randint(axis_key, (), 0, size - width + 1)
            position = jnp.arange(size)
            covers.append((position >= start) & (position < start + width))
        return jnp.where(covers[0][:, None, None] & covers[1][None, :, None], mean, x)

    return _corrupt_pixels(change)


def rotate_image(statistics: InputStatistics, degrees: float = 90.0) -> Corruption:
    """Rotates by `degrees` · level around the center, in either direction.

    Pixels are interpolated linearly; outside of the image is the lower end of the range.
    """

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        angle = jax.random.rademacher(key, ()) * jnp.deg2rad(degrees * level)
        center = jnp.array([(size - 1) / 2 for size in x.shape[:2]])
        row, column = jnp.meshgrid(*map(jnp.arange, x.shape[:2]), indexing="ij")
        row, column = row - center[0], column - center[1]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # A pixel of the result comes from where the opposite rotation puts it.
        source = [
            cos * row - sin * column + center[0],
            sin * row + cos * column + center[1],
        ]
        # Interpolation fills the outside with 0, which then is the lower end of the range.
        low = expand_features(statistics.low, 3)
        return _interpolate(x - low, source, "constant") + low

    return _corrupt_pixels(change)


def crop_image(statistics: InputStatistics, smallest: float = 0.5) -> Corruption:
    """Enlarges a window at a random place whose sides are 1 - (1 - `smallest`) · level long.

    Pixels are interpolated linearly, and repeated beyond the border.
    """

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        share = 1 - (1 - smallest) * level
        start = jax.random.uniform(key, (2,)) * (1 - share)
        axes = []
        for i, size in enumerate(x.shape[:2]):
            # Centers of pixels lie at half numbers.
            axes.append(start[i] * size + (jnp.arange(size) + 0.5) * share - 0.5)
        return _interpolate(x, list(jnp.meshgrid(*axes, indexing="ij")), "nearest")

    return _corrupt_pixels(change)


def invert_intensity(statistics: InputStatistics) -> Corruption:
    """Mixes the image with its negative, which has the weight `level`."""
    low, high = _get_range(statistics)

    def change(key: Key[Array, ""], x: _Pixels, level: Level) -> _Pixels:
        return x + level * (low + high - 2 * x)

    return _corrupt_pixels(change)


def _get_range(statistics: InputStatistics) -> tuple[Array, Array]:
    low, high = expand_features(statistics.low, 3), expand_features(statistics.high, 3)
    return jnp.asarray(low), jnp.asarray(high)


def _corrupt_pixels(change: Callable[[Key[Array, ""], _Pixels, Level], _Pixels]) -> Corruption:
    """Makes a corruption of a change of pixels in float32."""

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        if x.ndim != 3:
            raise ValueError(
                f"an image is [height width channels], but the input is {list(x.shape)}; say by "
                "`kinds` what kind of input it is."
            )
        return restore_type(change(key, x.astype(jnp.float32), level), x, level)

    return apply


def _make_blur_matrix(size: int, sigma: Float[Array, ""]) -> Float[Array, "n n"]:
    """Makes the matrix that averages along an axis; its rows sum to 1."""
    position = jnp.arange(size, dtype=jnp.float32)
    distance = position[:, None] - position[None, :]
    weights = jnp.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _interpolate(x: _Pixels, source: list[Array], mode: str) -> _Pixels:
    """Interpolates every channel linearly at the places [row, column]."""

    def interpolate(channel: Float[Array, "h w"]) -> Float[Array, "h w"]:
        return jax.scipy.ndimage.map_coordinates(channel, source, order=1, mode=mode)

    return jax.vmap(interpolate, in_axes=2, out_axes=2)(x)
