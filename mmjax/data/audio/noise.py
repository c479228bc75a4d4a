"""Background noise for speech, at a level given in decibels."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

Kind = Literal["white", "pink", "babble"]
KINDS: tuple[str, ...] = get_args(Kind)
VOICES = 4  # that babble at once
LEVEL = 0.1  # root mean square of speech


def mixed(
    speech: Float[np.ndarray, " time"],
    length: int,
    rng: np.random.Generator,
    *,
    kind: Kind,
    snr: float,
    others: Sequence[Float[np.ndarray, " _"]] = (),
) -> Float[np.ndarray, " {length}"]:
    """Puts speech at a random time into noise that lasts `length` samples.

    Speech is brought to a root mean square of 0.1 over its own duration, noise to 0.1 less `snr`
    decibels over all; what does not fit of the speech is cut off at its end.

    Args:
      speech: the samples, not all zero.
      length: of the result.
      rng: draws the time and the noise.
      kind: "white"; "pink", whose power falls with frequency; or "babble", four of the `others` at
        once, each repeated from a random place on.
      snr: ratio of speech to noise, in decibels; infinity is no noise.
      others: what babbles.
    """
    speech = speech[:length]
    start = rng.integers(length - len(speech), endpoint=True)
    background = noise(kind, length, rng, others)
    result = background * (LEVEL * 10 ** (-snr / 20) / _rms(background))
    result[start : start + len(speech)] += speech * (LEVEL / _rms(speech))
    return result


def noise(
    kind: Kind, length: int, rng: np.random.Generator, others: Sequence[Float[np.ndarray, " _"]]
) -> Float[np.ndarray, " {length}"]:
    """Noise at no particular level."""
    if kind == "babble":
        return np.sum([_from_anywhere(rng, _choice(rng, others), length) for _ in range(VOICES)], 0)
    white = rng.standard_normal(length)
    return white if kind == "white" else _pink(white)


def _pink(white: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    """Halves the power with every octave; the constant part goes."""
    spectrum = np.fft.rfft(white)
    spectrum[0] = 0
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    return np.fft.irfft(spectrum, len(white))


def _choice(
    rng: np.random.Generator, others: Sequence[Float[np.ndarray, " _"]]
) -> Float[np.ndarray, " _"]:
    chosen = others[int(rng.integers(len(others)))]
    return chosen / _rms(chosen)


def _from_anywhere(
    rng: np.random.Generator, samples: Float[np.ndarray, " _"], length: int
) -> Float[np.ndarray, " {length}"]:
    """Starts at a random sample and goes round."""
    return np.resize(np.roll(samples, -rng.integers(len(samples))), length)


def _rms(samples: Float[np.ndarray, " _"]) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
