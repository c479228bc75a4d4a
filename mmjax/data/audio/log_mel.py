"""The log-mel front end, which turns samples of sound into frames of band levels."""

import functools

import numpy as np
import scipy  # its parts are imported when they are first used
from jaxtyping import Complex, Float, Real


def log_mel(
    samples: Real[np.ndarray, " time"],
    sample_rate: int,
    *,
    window: float = 0.025,
    hop: float = 0.010,
    transform: int | None = None,
    mels: int = 40,
    low: float = 0.0,
    high: float | None = None,
    floor: float = 1e-10,
) -> Float[np.ndarray, "frames mels"]:
    """Computes the natural logarithm of the power in mel bands, frame by frame.

    Args:
      samples: the signal, in [-1, 1]. A signal shorter than one window is padded with zeros.
      sample_rate: in Hz.
      window: length of a frame, in seconds; frames are weighted by a periodic Hann window.
      hop: time from one frame to the next, in seconds.
      transform: length of the Fourier transform, in samples, to which a frame is padded with zeros;
        None is the next power of two. Narrow bands need a longer one.
      mels: number of bands, triangles at equal distances on the mel scale.
      low: lower edge of the lowest band, in Hz.
      high: upper edge of the highest band, in Hz; None is half the sample rate.
      floor: minimum power, so that the logarithm of silence is finite.

    Raises:
      ValueError: if the bands do not fit into 0 to half the sample rate, or are so narrow that one
        of them contains no frequency of the transform, or if the transform is shorter than a frame.

    Example:
      >>> log_mel(np.zeros(8000), sample_rate=8000, mels=24).shape
      (98, 24)
    """
    size, step = round(window * sample_rate), round(hop * sample_rate)
    transform = transform or 1 << (size - 1).bit_length()
    power = np.abs(stft(samples, size=size, step=step, transform=transform)) ** 2
    bank = _make_sparse_filters(
        sample_rate, transform, mels, low, sample_rate / 2 if high is None else high
    )
    return np.log(np.maximum((bank.T @ power.T).T, floor)).astype(np.float32)


def stft(
    samples: Real[np.ndarray, " time"], *, size: int, step: int, transform: int
) -> Complex[np.ndarray, "frames frequencies"]:
    """Computes a short-time Fourier transform, scaled so that a constant 1 gives 1 at frequency 0.

    Frames have `size` samples, start `step` samples apart and are padded with zeros to `transform`
    samples. All lie completely inside the signal: there are 1 + (time - size) // step.

    Example:
      >>> float(abs(stft(np.ones(100), size=64, step=16, transform=64)[0, 0]))
      1.0
    """
    if size < 1 or step < 1:
        raise ValueError(f"A frame has {size} samples and a hop {step}; both must be at least 1.")
    if transform < size:
        raise ValueError(f"transform is {transform}; it must be at least a frame's {size} samples.")
    padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    # Periodic, as for any analysis by frames; divided by its sum, so that levels do not depend on
    # the window's length.
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return scipy.fft.rfft(frames * (hann / hann.sum())[None], transform)


@functools.cache
def _make_sparse_filters(
    sample_rate: int, transform: int, mels: int, low: float, high: float
) -> "scipy.sparse.csc_array":
    """Makes sparse filters, which multiply faster and without threads."""
    return scipy.sparse.csc_array(make_mel_filters(sample_rate, transform, mels, low, high))


@functools.cache
def make_mel_filters(
    sample_rate: int, transform: int, mels: int, low: float, high: float
) -> Float[np.ndarray, "frequencies mels"]:
    """Makes triangles of height 1, each from the peak of its left to that of its right neighbor.

    The peaks lie at equal distances on the scale 2595 log10(1 + f / 700), f in Hz.

    Example:
      >>> make_mel_filters(8000, 256, mels=24, low=0.0, high=4000.0).shape
      (129, 24)
    """
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(
            f"Mel bands from {low} to {high} Hz do not fit into 0 to {sample_rate / 2} Hz."
        )
    # Triangles with equal widths on the mel scale; neighbors cross at half of their height.
    edges = _mel_to_hertz(np.linspace(_hertz_to_mel(low), _hertz_to_mel(high), mels + 2))
    # Bin k of a transform of n samples lies at k * sample_rate / n hertz.
    frequencies = np.arange(transform // 2 + 1)[:, None] * sample_rate / transform
    left, peak, right = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rising = (frequencies - left) / (peak - left)
    falling = (right - frequencies) / (right - peak)
    bank = np.maximum(0, np.minimum(rising, falling))
    if not bank.any(axis=0).all():
        raise ValueError(
            f"{mels} mel bands are too many for a window of {transform} samples: some contain no "
            "frequency. Use fewer bands, a longer window or a longer transform."
        )
    return bank


def _hertz_to_mel(hertz: float) -> float:
    # O'Shaughnessy's formula, the one of HTK.
    return 2595 * np.log10(1 + hertz / 700)


def _mel_to_hertz(mel: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 700 * (10 ** (mel / 2595) - 1)
