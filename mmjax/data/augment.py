"""Augmentations: pure functions that change one input of one training example.

Each is `(key, x, length) -> x` and keeps shape and type, and so is any other that a user writes:
`make_example_augmentation` leaves absent inputs and padding unchanged, and the training step
passes a new key for every example of every step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from mmjax.data.modality_dropout import Rates, check_fraction, drop_modalities, fold_in_name
from mmjax.types import Batch

Augment = Callable[[Key[Array, ""], Array, Int[Array, ""] | None], Array]
AugmentExample = Callable[[Key[Array, ""], Batch], Batch]


def shift_and_crop(pixels: int) -> Augment:
    """Moves an image [height width ...] by up to `pixels` along each axis.

    Every shift is equally likely; zeros fill the border. The augmentation of He et al., CVPR 2016
    (arXiv:1512.03385), section 4.2: pad, then crop at random.

    Example:
      >>> shift_and_crop(pixels=2)(jax.random.key(0), jnp.ones((8, 8, 1)), None).shape
      (8, 8, 1)
    """
    if pixels < 0:
        raise ValueError(f"shift_and_crop: pixels is {pixels}; it must be 0 or more.")

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim < 2:
            raise ValueError(f"shift_and_crop needs [height width ...] but got {list(x.shape)}.")
        # Cropping the padded image at offset `pixels` would return it unshifted.
        offset = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
        padded = jnp.pad(x, [(pixels, pixels)] * 2 + [(0, 0)] * (x.ndim - 2))
        return jax.lax.dynamic_slice(padded, (*offset, *[0] * (x.ndim - 2)), x.shape)

    return apply


def spec_augment(
    *,
    time: int,
    frequency: int,
    time_masks: int = 1,
    frequency_masks: int = 1,
    time_share: float = 1.0,
    value: float = 0.0,
) -> Augment:
    """Masks blocks of frames and of bands of a spectrogram [time bands ...].

    The width of a mask is uniform between 0 and its maximum, and its start is uniform among those
    that keep it inside the true length. Park et al., Interspeech 2019 (arXiv:1904.08779), without
    time warping, which they found to matter least.

    Args:
      time: maximum width of a time mask, in frames (T in the paper).
      frequency: maximum width of a frequency mask, in bands (F).
      time_masks: number of time masks (m_T).
      frequency_masks: number of frequency masks (m_F).
      time_share: maximum width of a time mask as a share of the true length (p).
      value: the value of masked elements; 0 is the mean of a standardized spectrogram.

    Example:
      >>> augment = spec_augment(time=10, frequency=4)
      >>> augment(jax.random.key(0), jnp.ones((48, 24)), jnp.int32(40)).shape
      (48, 24)
    """
    for name, count in (
        ("time", time),
        ("frequency", frequency),
        ("time_masks", time_masks),
        ("frequency_masks", frequency_masks),
    ):
        if count < 0:
            raise ValueError(f"spec_augment: {name} is {count}; it must be 0 or more.")
    check_fraction("spec_augment: time_share", time_share)

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim < 2:
            raise ValueError(f"spec_augment needs [time bands ...] but got {list(x.shape)}.")
        frames, bands = x.shape[:2]
        true_length = jnp.asarray(frames if length is None else length, jnp.int32)
        # A mask is at most `time` frames and at most `time_share` of the true length (SpecAugment's
        # p).
        max_width = jnp.minimum(time, jnp.floor(time_share * true_length).astype(jnp.int32))
        keys = jax.random.split(key, time_masks + frequency_masks)
        rows = _draw_block_mask(keys[:time_masks], frames, true_length, max_width)
        columns = _draw_block_mask(keys[time_masks:], bands, jnp.int32(bands), jnp.int32(frequency))
        masked = rows[:, None] | columns[None, :]
        return jnp.where(jnp.expand_dims(masked, range(2, x.ndim)), jnp.array(value, x.dtype), x)

    return apply


def token_dropout(rate: float, token: int = 0) -> Augment:
    """Replaces each token of a text [time] by `token` with probability `rate`.

    Iyyer et al., ACL 2015 (word dropout); 0 is the padding token of texts read by mmjax.

    Example:
      >>> token_dropout(rate=1.0)(jax.random.key(0), jnp.array([3, 1, 2]), None).tolist()
      [0, 0, 0]
    """
    check_fraction("token_dropout: rate", rate)

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                f"token_dropout needs integer tokens [time] but got {x.dtype}{list(x.shape)}."
            )
        return jnp.where(jax.random.bernoulli(key, rate, x.shape), jnp.array(token, x.dtype), x)

    return apply


def gaussian_noise(scale: float) -> Augment:
    """Adds independent normal noise of standard deviation `scale`, in the unit of the input.

    Example:
      >>> gaussian_noise(scale=0.1)(jax.random.key(0), jnp.zeros(3), None).shape
      (3,)
    """
    if scale < 0:
        raise ValueError(f"gaussian_noise: scale is {scale}; it must be 0 or more.")

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"gaussian_noise needs floating-point numbers but got {x.dtype}.")
        return x + scale * jax.random.normal(key, x.shape, x.dtype)

    return apply


def chain(*augments: Augment) -> Augment:
    """Applies several augmentations one after the other, each with its own key.

    Example:
      >>> augment = chain(shift_and_crop(pixels=2), gaussian_noise(scale=0.1))
      >>> augment(jax.random.key(0), jnp.ones((8, 8, 1)), None).shape
      (8, 8, 1)
    """

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        for i, augment in enumerate(augments):
            x = augment(jax.random.fold_in(key, i), x, length)
        return x

    return apply


def make_example_augmentation(
    augments: Mapping[str, Augment], modality_dropout: Rates = 0.0
) -> AugmentExample | None:
    """Makes the augmentation of ONE example: that of every modality, then modality dropout.

    The random numbers of a modality depend only on the key and its name, so that they stay the
    same when another modality is removed from the model.

    Args:
      augments: {modality: augmentation}; modalities that an example does not have are skipped.
      modality_dropout: see `drop_modalities`.

    Returns:
      (key, example) -> example, where the example is a `Batch` without its leading axis; None if
      there is nothing to do.
    """
    # A rate that differs between replicas is traced, so it cannot be compared with 0.
    is_static = isinstance(modality_dropout, float | int | Mapping)
    if not augments and is_static and not modality_dropout:
        return None

    def apply(key: Key[Array, ""], example: Batch) -> Batch:
        example = jax.tree.map(jnp.asarray, example)
        # A modality's key depends on its name, so that another augmentation does not change its
        # draws.
        change_key, drop_key = jax.random.split(key)
        inputs = dict(example.inputs)
        for m in example.inputs:
            if m in augments:
                inputs[m] = _augment_input(augments[m], fold_in_name(change_key, m), m, example)
        present = drop_modalities(drop_key, example.present, modality_dropout)
        return example._replace(inputs=inputs, present=present)

    return apply


def _augment_input(augment: Augment, key: Key[Array, ""], modality: str, example: Batch) -> Any:
    """Augments an input; absent values and padding stay as they are."""
    x, length = example.inputs[modality], example.lengths.get(modality)
    return _replace_real_values(modality, augment(key, x, length), x, example, length)


def _replace_real_values(modality: str, new: Any, x: Any, example: Batch, length: Any) -> Any:
    """Takes the new values where the old ones are neither absent nor padding."""
    if isinstance(x, Mapping):
        lengths = length or {}
        return {
            name: _replace_real_values(modality, new[name], part, example, lengths.get(name))
            for name, part in x.items()
        }
    if new.shape != x.shape or new.dtype != x.dtype:
        raise ValueError(
            f"The augmentation of {modality!r} turned {x.dtype}{list(x.shape)} into "
            f"{new.dtype}{list(new.shape)}; it must keep shape and type."
        )
    real = example.present[modality]
    if length is not None:
        inside = real & (jnp.arange(x.shape[0]) < length)
        real = jnp.expand_dims(inside, range(1, x.ndim))
    return jnp.where(real, new, x)


def _draw_block_mask(
    keys: Key[Array, " k"], size: int, limit: Int[Array, ""], max_width: Int[Array, ""]
) -> Bool[Array, " n"]:
    """Draws the union of `k` blocks in 0..size-1, each up to `max_width` wide and below `limit`."""

    def draw_block(key: Key[Array, ""]) -> Bool[Array, " n"]:
        width_key, start_key = jax.random.split(key)
        width = jax.random.randint(width_key, (), 0, jnp.minimum(max_width, limit) + 1)
        start = jax.random.randint(start_key, (), 0, limit - width + 1)
        positions = jnp.arange(size)
        return (positions >= start) & (positions < start + width)

    return jax.vmap(draw_block)(keys).any(axis=0)
