"""The generation settings of av_mnist, and the names of its speakers and digits."""

import dataclasses
from typing import Any

import numpy as np

from mmjax.data.audio.noise import NOISE_KINDS, NoiseKind
from mmjax.data.audio.spectrogram import Spectrogram
from mmjax.data.builtin.generation_config import GenerationConfig
from mmjax.data.builtin.originals.fsdd import SAMPLE_RATE

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DIGITS = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise behind a word.

    Attributes:
      kind: "white", "pink", or "babble": four other recordings of the same split at once.
      snr: ratio of speech to noise, in decibels; infinity means no noise.

    Example:
      >>> Noise("babble", snr=-3.0)
      Noise(kind='babble', snr=-3.0)
    """

    kind: NoiseKind = "white"
    snr: float = -6.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AvMnistConfig(GenerationConfig):
    """The arguments of `av_mnist`."""

    dataset: str = "av_mnist"
    version: str = "1.0.0"
    energy_removed: float
    noise: Noise
    spectrogram: Spectrogram
    split_by: str
    skip_damaged: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.energy_removed < 1:
            raise ValueError(
                f"energy_removed is {self.energy_removed}; it must be at least 0 and less than 1."
            )
        if self.noise.kind not in NOISE_KINDS:
            raise ValueError(
                f"noise.kind is {self.noise.kind!r}; it is one of {', '.join(NOISE_KINDS)}."
            )
        if not self.noise.snr > -np.inf:
            raise ValueError(f"noise.snr is {self.noise.snr}; it must be a number of decibels.")
        if self.split_by not in ("take", "speaker"):
            raise ValueError(f"split_by is {self.split_by!r}; it is 'take' or 'speaker'.")
        self.spectrogram.check(SAMPLE_RATE)

    @property
    def ingredients(self) -> list[Any]:
        """Returns the settings besides the seed and the sizes."""
        inputs = [float(self.energy_removed), self.noise, self.spectrogram]
        return [*inputs, self.split_by, self.skip_damaged]
