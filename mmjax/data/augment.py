"""Augmentations: pure functions that change one input of one training example.

Each is `(key, x, length) -> x` and keeps shape and type. A researcher's own needs no more than
that: `augmentation` sees to it that absent inputs and padding stay as they are, and the training
step gives every example of every step a key of its own.
"""

import functools
import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.types import Batch

Augment = Callable[[Key[Array, ""], Array, Int[Array, ""] | None], Array]
AugmentExample = Callable[[Key[Array, ""], Batch], Batch]
Rate = float | Float[Array, ""]
Rates = Rate | Mapping[str, Rate]


def shift_and_crop(pixels: int) -> Augment:
    """Moves an image [height width ...] by up to `pixels` along each axis.

    Every shift is equally likely; zeros come in at the border. It is the translation of
    He et al., CVPR 2016 (arXiv:1512.03385), section 4.2: pad, then crop at random.
    """
    if pixels < 0:
        raise ValueError(f"shift_and_crop: pixels is {pixels}; it must be 0 or more.")

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim < 2:
            raise ValueError(f"shift_and_crop needs [height width ...] but got {list(x.shape)}.")
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

    A mask's width is uniform between 0 and the greatest, and so is its place among those where it
    lies inside the true length. Park et al., Interspeech 2019 (arXiv:1904.08779), without the
    warping of time, which they found to matter least.

    Args:
      time: greatest width of a time mask, in frames (T in the paper).
      frequency: greatest width of a frequency mask, in bands (F).
      time_masks: how many time masks (m_T).
      frequency_masks: how many frequency masks (m_F).
      time_share: greatest width of a time mask as a share of the true length (p).
      value: what stands under a mask; 0 is the mean of a normalised spectrogram.
    """
    for name, count in (
        ("time", time),
        ("frequency", frequency),
        ("time_masks", time_masks),
        ("frequency_masks", frequency_masks),
    ):
        if count < 0:
            raise ValueError(f"spec_augment: {name} is {count}; it must be 0 or more.")
    _check_share("spec_augment: time_share", time_share)

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim < 2:
            raise ValueError(f"spec_augment needs [time bands ...] but got {list(x.shape)}.")
        frames, bands = x.shape[:2]
        true = jnp.asarray(frames if length is None else length, jnp.int32)
        widest = jnp.minimum(time, jnp.floor(time_share * true).astype(jnp.int32))
        keys = jax.random.split(key, time_masks + frequency_masks)
        rows = _blocks(keys[:time_masks], frames, true, widest)
        columns = _blocks(keys[time_masks:], bands, jnp.int32(bands), jnp.int32(frequency))
        masked = rows[:, None] | columns[None, :]
        return jnp.where(jnp.expand_dims(masked, range(2, x.ndim)), jnp.array(value, x.dtype), x)

    return apply


def token_dropout(rate: float, token: int = 0) -> Augment:
    """Replaces each token of a text [time] with probability `rate` by `token`.

    Iyyer et al., ACL 2015 (word dropout); 0 is the padding of mmjax's own texts.
    """
    _check_share("token_dropout: rate", rate)

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                f"token_dropout needs integer tokens [time] but got {x.dtype}{list(x.shape)}."
            )
        return jnp.where(jax.random.bernoulli(key, rate, x.shape), jnp.array(token, x.dtype), x)

    return apply


def gaussian_noise(scale: float) -> Augment:
    """Adds independent normal noise of standard deviation `scale`, in the input's own unit."""
    if scale < 0:
        raise ValueError(f"gaussian_noise: scale is {scale}; it must be 0 or more.")

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"gaussian_noise needs floating-point numbers but got {x.dtype}.")
        return x + scale * jax.random.normal(key, x.shape, x.dtype)

    return apply


def chain(*augments: Augment) -> Augment:
    """One augmentation after the other, each with a key of its own."""

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None) -> Array:
        for i, augment in enumerate(augments):
            x = augment(jax.random.fold_in(key, i), x, length)
        return x

    return apply


def augmentation(
    augments: Mapping[str, Augment], modality_dropout: Rates = 0.0
) -> AugmentExample | None:
    """What training does to ONE example: every modality's augmentation, then modality dropout.

    A modality's draws depend on the key and its name alone, so that they stay the same when
    another modality is left out of the model.

    Args:
      augments: {modality: augmentation}; modalities that an example does not have are skipped.
      modality_dropout: see `drop_modalities`.

    Returns:
      (key, example) -> example, where the example is a `Batch` without its leading axis; None where
      there is nothing to do.
    """
    # A rate that differs between lanes is no plain number, and is never known to be 0.
    plain = isinstance(modality_dropout, float | int | Mapping)
    if not augments and plain and not modality_dropout:
        return None

    def apply(key: Key[Array, ""], example: Batch) -> Batch:
        example = jax.tree.map(jnp.asarray, example)
        change_key, drop_key = jax.random.split(key)
        inputs = {
            m: _changed(augments[m], named(change_key, m), m, example) if m in augments else x
            for m, x in example.inputs.items()
        }
        present = drop_modalities(drop_key, example.present, modality_dropout)
        return example._replace(inputs=inputs, present=present)

    return apply


def drop_modalities(
    key: Key[Array, ""], present: Mapping[str, Bool[Array, ""]], rates: Rates
) -> dict[str, Bool[Array, ""]]:
    """Drops each present modality at its rate, independently, but never all of them.

    Where all would go, one of them stays, each equally likely. Neverova et al., TPAMI 2016
    (ModDrop, arXiv:1501.00102).

    Args:
      key: decides.
      present: {modality: whether one example has it}.
      rates: one rate for all modalities, or {modality: rate}; the others stay. Traced numbers will
        do.
    """
    # A modality goes where draw < rate. Given that it goes, draw / rate is uniform, so that the
    # largest one among those that go falls on each of them alike.
    scores = {m: _score(jax.random.uniform(named(key, m)), rate_of(rates, m)) for m in present}
    best = functools.reduce(jnp.maximum, (jnp.where(present[m], scores[m], 0.0) for m in present))
    return {m: here & (scores[m] >= jnp.minimum(best, 1.0)) for m, here in present.items()}


def rate_of(rates: Rates, name: str) -> Rate:
    """The rate of one modality or task."""
    return rates.get(name, 0.0) if isinstance(rates, Mapping) else rates


def check_rates(name: str, rates: Rates) -> None:
    """Refuses rates outside 0 to 1."""
    for key, rate in rates.items() if isinstance(rates, Mapping) else [("", rates)]:
        _check_share(f"{name}[{key!r}]" if key else name, rate)


def named(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """A key for a name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def _score(draw: Float[Array, ""], rate: Rate) -> Float[Array, ""]:
    """Draw / rate, and infinity where the rate is 0; it asks nothing of a rate that is traced."""
    traced = jnp.asarray(rate, draw.dtype)
    return jnp.where(traced > 0, draw / jnp.where(traced > 0, traced, 1), jnp.inf)


def _changed(augment: Augment, key: Key[Array, ""], modality: str, example: Batch) -> Array:
    """The augmented input, but for what is absent or padding."""
    x, length = example.inputs[modality], example.lengths.get(modality)
    new = augment(key, x, length)
    if new.shape != x.shape or new.dtype != x.dtype:
        raise ValueError(
            f"The augmentation of {modality!r} made {new.dtype}{list(new.shape)} of "
            f"{x.dtype}{list(x.shape)}; it must keep shape and type."
        )
    real = example.present[modality]
    if length is not None:
        inside = real & (jnp.arange(x.shape[0]) < length)
        real = jnp.expand_dims(inside, range(1, x.ndim))
    return jnp.where(real, new, x)


def _blocks(
    keys: Key[Array, " k"], size: int, limit: Int[Array, ""], widest: Int[Array, ""]
) -> Bool[Array, " n"]:
    """The union of `k` blocks in 0..size-1, each up to `widest` wide and inside the limit."""

    def one(key: Key[Array, ""]) -> Bool[Array, " n"]:
        width_key, start_key = jax.random.split(key)
        width = jax.random.randint(width_key, (), 0, jnp.minimum(widest, limit) + 1)
        start = jax.random.randint(start_key, (), 0, limit - width + 1)
        places = jnp.arange(size)
        return (places >= start) & (places < start + width)

    return jax.vmap(one)(keys).any(axis=0)


def _check_share(what: str, share: Rate) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is {share}; it must be between 0 and 1.")
