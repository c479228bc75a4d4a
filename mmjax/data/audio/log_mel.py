"""The log-mel front end: from samples of sound to frames of band levels."""

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
    """Natural logarithm of the power in mel bands, frame by frame.

    Args:
      samples: the signal, in [-1, 1]. A signal shorter than one window is padded with zeros.
      sample_rate: in Hz.
      window: length of a frame, in seconds; it is weighted by a periodic Hann window.
      hop: time from one frame to the next, in seconds.
      transform: length of the Fourier transform, in samples, to which a frame is padded with zeros;
        None is the next power of two. Narrow bands need a longer one.
      mels: number of bands, triangles that lie evenly on the mel scale.
      low: lower edge of the lowest band, in Hz.
      high: upper edge of the highest band, in Hz; None is half the sample rate.
      floor: smallest power, so that silence stays finite.

    Raises:
      ValueError: if the bands do not fit into 0 to half the sample rate, or are so narrow that one
        of them holds no frequency of the transform, or if the transform is shorter than a frame.
    """
    size, step = round(window * sample_rate), round(hop * sample_rate)
    transform = transform or 1 << (size - 1).bit_length()
    power = np.abs(stft(samples, size=size, step=step, transform=transform)) ** 2
    bank = _bank(sample_rate, transform, mels, low, sample_rate / 2 if high is None else high)
    return np.log(np.maximum((bank.T @ power.T).T, floor)).astype(np.float32)


def stft(
    samples: Real[np.ndarray, " time"], *, size: int, step: int, transform: int
) -> Complex[np.ndarray, "frames frequencies"]:
    """Short-time Fourier transform, scaled so that a constant 1 gives 1 at frequency 0.

    `size` samples a frame, `step` samples apart, padded with zeros to `transform` samples. Frames
    lie whole inside the signal: there are 1 + (time - size) // step.
    """
    if size < 1 or step < 1:
        raise ValueError(f"A frame has {size} samples and a hop {step}; both must be at least 1.")
    if transform < size:
        raise ValueError(f"transform is {transform}; it must be at least a frame's {size} samples.")
    padded = np.pad(samples.astype(np.float64), (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    return scipy.fft.rfft(frames * (hann / hann.sum())[None], transform)


@functools.cache
def _bank(
    sample_rate: int, transform: int, mels: int, low: float, high: float
) -> "scipy.sparse.csc_array":
    """The filters without their zeros, which makes the product faster and free of threads."""
    return scipy.sparse.csc_array(mel_filters(sample_rate, transform, mels, low, high))


@functools.cache
def mel_filters(
    sample_rate: int, transform: int, mels: int, low: float, high: float
) -> Float[np.ndarray, "frequencies mels"]:
    """Triangles of height 1, each from its left neighbour's peak to its right neighbour's.

    Their peaks lie evenly on the scale 2595 log10(1 + f / 700), f in Hz.
    """
    if not 0 <= low < high <= sample_rate / 2:
        raise ValueError(
            f"Mel bands from {low} to {high} Hz do not fit into 0 to {sample_rate / 2} Hz."
        )
    edges = _hertz(np.linspace(_mel(low), _mel(high), mels + 2))
    frequencies = np.arange(transform // 2 + 1)[:, None] * sample_rate / transform
    left, peak, right = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rising = (frequencies - left) / (peak - left)
    falling = (right - frequencies) / (right - peak)
    bank = np.maximum(0, np.minimum(rising, falling))
    if not bank.any(axis=0).all():
        raise ValueError(
            f"{mels} mel bands are too many for a window of {transform} samples: some hold no "
            "frequency. Take fewer bands, a longer window or a longer transform."
        )
    return bank


def _mel(hertz: float) -> float:
    return 2595 * np.log10(1 + hertz / 700)


def _hertz(mel: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 700 * (10 ** (mel / 2595) - 1)
