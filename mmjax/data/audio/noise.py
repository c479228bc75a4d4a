"""Background noise for speech, at a level given in decibels."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

NoiseKind = Literal["white", "pink", "babble"]
NOISE_KINDS: tuple[str, ...] = get_args(NoiseKind)
_BABBLE_VOICES = 4  # recordings that make up babble
_SPEECH_RMS = 0.1  # root mean square of speech


def mix_with_noise(
    speech: Float[np.ndarray, " time"],
    length: int,
    rng: np.random.Generator,
    *,
    kind: NoiseKind,
    snr: float,
    others: Sequence[Float[np.ndarray, " _"]] = (),
) -> Float[np.ndarray, " {length}"]:
    """Adds speech at a random time to noise of `length` samples.

    Speech is scaled to a root mean square of 0.1 over its own duration, noise to `snr` decibels
    below that over all. Speech that is too long is cut off at its end.

    Args:
      speech: the samples, not all zero.
      length: number of samples of the result.
      rng: draws the time and the noise.
      kind: "white"; "pink", whose power falls with frequency; or "babble", four of the `others` at
        once, each repeated from a random start.
      snr: ratio of speech to noise, in decibels; infinity means no noise.
      others: recordings that babble is drawn from.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> mix_with_noise(np.ones(50), 80, rng, kind="white", snr=6.0).shape
      (80,)
    """
    speech = speech[:length]
    start = rng.integers(length - len(speech), endpoint=True)
    background = make_noise(kind, length, rng, others)
    # SNR = 20 log10(rms of speech / rms of noise) decibels.
    result = background * (_SPEECH_RMS * 10 ** (-snr / 20) / _root_mean_square(background))
    result[start : start + len(speech)] += speech * (_SPEECH_RMS / _root_mean_square(speech))
    return result


def make_noise(
    kind: NoiseKind,
    length: int,
    rng: np.random.Generator,
    others: Sequence[Float[np.ndarray, " _"]],
) -> Float[np.ndarray, " {length}"]:
    """Makes noise of arbitrary level; see `mix_with_noise` for the arguments."""
    if kind == "babble":
        voices = [
            _repeat_from_random_start(rng, _choose_recording(rng, others), length)
            for _ in range(_BABBLE_VOICES)
        ]
        return np.sum(voices, axis=0)
    white = rng.standard_normal(length)
    return white if kind == "white" else _make_pink(white)


def _make_pink(white: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """Halves the power of white noise with every octave, and removes its mean."""
    spectrum = np.fft.rfft(white)
    # 1 / f has no value at frequency 0, so the noise has no constant part.
    spectrum[0] = 0
    # Power falls as 1 / frequency, so that the amplitude falls as its square root.
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.fft.irfft(spectrum, len(white))


def _choose_recording(
    rng: np.random.Generator, others: Sequence[Float[np.ndarray, " _"]]
) -> Float[np.ndarray, " _"]:
    """Chooses a recording and scales it to a root mean square of 1."""
    chosen = others[int(rng.integers(len(others)))]
    return chosen / _root_mean_square(chosen)


def _repeat_from_random_start(
    rng: np.random.Generator, samples: Float[np.ndarray, " _"], length: int
) -> Float[np.ndarray, " {length}"]:
    """Repeats the samples from a random start until there are `length`."""
    return np.resize(np.roll(samples, -rng.integers(len(samples))), length)


def _root_mean_square(samples: Float[np.ndarray, " _"]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
