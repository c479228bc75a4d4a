"""Corruptions of sequences of numbers [time ...]: waveforms, spectrograms, sensors.

Each factory takes the statistics of the modality and returns `(key, x, length, level) -> x`. What a
sequence loses becomes the mean of the training split. See docs/robustness.md for units and levels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.masks import expand_mask
from mmjax.modalities.robustness.corruption import Corruption, Level, draw_mask, restore_type
from mmjax.modalities.robustness.input_statistics import InputStatistics, expand_features

_Steps = Float[Array, "time ..."]
_Change = Callable[[Key[Array, ""], _Steps, Int[Array, ""], Level], _Steps]


def add_noise_at_snr(statistics: InputStatistics, decibels: float = 0.0) -> Corruption:
    """Adds white noise whose ratio of signal to noise is `decibels` - 20 log10(level) dB.

    The signal of a feature is its distance from the mean of the training split; its power is the
    mean square over the true length. So level 0.1 is 20 dB above level 1.
    """

    def change(key: Key[Array, ""], signal: _Steps, end: Int[Array, ""], level: Level) -> _Steps:
        axes = _get_axes_of_power(signal)
        total = jnp.square(signal).sum(axis=axes, keepdims=True)
        # Padding adds nothing to the sum, so only the divisor needs the true length.
        steps = jnp.maximum(end, 1) * (signal[0].size // total.size)
        amplitude = level * 10 ** (-decibels / 20) * jnp.sqrt(total / steps)
        return signal + amplitude * jax.random.normal(key, signal.shape)

    return _corrupt_signal(statistics, change)


def drop_steps(statistics: InputStatistics) -> Corruption:
    """Drops each time step with probability `level`."""

    def change(key: Key[Array, ""], signal: _Steps, end: Int[Array, ""], level: Level) -> _Steps:
        return _hide_steps(signal, draw_mask(key, level, signal.shape[:1]))

    return _corrupt_signal(statistics, change)


def drop_block(statistics: InputStatistics) -> Corruption:
    """Drops one block of time steps, the share `level` of the true length, at a random place.

    Example:
      >>> import numpy as np
      >>> from mmjax.data.dataset import Modality
      >>> from mmjax.modalities.robustness.input_statistics import measure_values
      >>> drop = drop_block(measure_values(np.array([[0.0, 2.0]]), Modality((2,), True)))
      >>> dropped = drop(jax.random.key(0), jnp.full(8, 5.0), None, jnp.float32(0.5))
      >>> sorted(dropped.tolist())
      [1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0]
    """

    def change(key: Key[Array, ""], signal: _Steps, end: Int[Array, ""], level: Level) -> _Steps:
        width = jnp.round(level * end).astype(jnp.int32)
        start = jax.random.randint(key, (), 0, end - width + 1)
        position = jnp.arange(len(signal))
        return _hide_steps(signal, (position >= start) & (position < start + width))

    return _corrupt_signal(statistics, change)


def clip_amplitude(statistics: InputStatistics) -> Corruption:
    """Clips each feature at the share 1 - `level` of its largest distance from the mean."""

    def change(key: Key[Array, ""], signal: _Steps, end: Int[Array, ""], level: Level) -> _Steps:
        axes = _get_axes_of_power(signal)
        limit = (1 - level) * jnp.abs(signal).max(axis=axes, keepdims=True)
        return jnp.clip(signal, -limit, limit)

    return _corrupt_signal(statistics, change)


def shift_steps(statistics: InputStatistics, largest: float = 0.5) -> Corruption:
    """Moves the sequence by `largest` · level of its length, to earlier or later steps."""

    def change(key: Key[Array, ""], signal: _Steps, end: Int[Array, ""], level: Level) -> _Steps:
        steps = jnp.round(largest * level * end).astype(jnp.int32)
        source = jnp.arange(len(signal)) - steps * jax.random.rademacher(key, (), jnp.int32)
        moved = signal[jnp.clip(source, 0, len(signal) - 1)]
        return _hide_steps(moved, (source < 0) | (source >= end))

    return _corrupt_signal(statistics, change)


def _corrupt_signal(statistics: InputStatistics, change: _Change) -> Corruption:
    """Makes a corruption of a change of the distances from the mean, which are 0 in padding."""

    def apply(key: Key[Array, ""], x: Array, length: Int[Array, ""] | None, level: Level) -> Array:
        if not x.ndim:
            raise ValueError("a series is [time ...], but the input is one number per example.")
        mean = expand_features(statistics.mean, x.ndim)
        end = jnp.asarray(len(x) if length is None else length, jnp.int32)
        inside = expand_mask(jnp.arange(len(x)) < end, x.ndim)
        # Padding may hold anything, even NaN, which a sum over time must not see.
        signal = jnp.where(inside, x.astype(jnp.float32) - mean, 0.0)
        return restore_type(change(key, signal, end, level) + mean, x, level)

    return apply


def _get_axes_of_power(signal: _Steps) -> tuple[int, ...]:
    """Returns the axes that one feature has values along: all but the last, or time alone."""
    return tuple(range(max(signal.ndim - 1, 1)))


def _hide_steps(signal: _Steps, hidden: Bool[Array, " time"]) -> _Steps:
    return jnp.where(expand_mask(hidden, signal.ndim), 0.0, signal)
