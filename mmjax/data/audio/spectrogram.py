"""Spectrograms of fixed size, in 8 bits."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from mmjax.data.audio.log_mel import log_mel


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """The settings of a spectrogram: levels in mel bands over time, each in 8 bits.

    It covers window + (frames - 1) * hop seconds, 0.92 by default.

    Attributes:
      frames: number of frames.
      mels: number of bands.
      window: length of a frame, in seconds.
      hop: time from one frame to the next, in seconds.
      low: lower edge of the lowest band, in Hz.
      high: upper edge of the highest band, in Hz, at most half the sample rate.
      lowest: level that is stored as 0, in decibels.
      highest: level that is stored as 255, in decibels.

    Example:
      >>> spectrogram = Spectrogram(frames=48, mels=24)
      >>> spectrogram(np.zeros(spectrogram.samples(8000)), 8000).shape
      (48, 24, 1)
    """

    frames: int = 112
    mels: int = 112
    window: float = 0.032
    hop: float = 0.008
    low: float = 0.0
    high: float = 4000.0
    lowest: float = -55.0
    highest: float = -5.0

    def check(self, rate: int) -> None:
        """Refuses settings that do not suit sounds of `rate` samples per second.

        Raises:
          ValueError: naming the setting.
        """
        for size in ("frames", "mels"):
            if getattr(self, size) < 1:
                raise ValueError(
                    f"spectrogram.{size} is {getattr(self, size)}; it must be 1 or more."
                )
        if not self.lowest < self.highest:
            raise ValueError(
                f"spectrogram.lowest is {self.lowest} and highest {self.highest}; lowest must be "
                "less."
            )
        self(np.zeros(self.samples(rate)), rate)

    def samples(self, rate: int) -> int:
        """Returns the number of samples that the frames cover."""
        return round(self.window * rate) + (self.frames - 1) * round(self.hop * rate)

    def __call__(
        self, samples: Float[np.ndarray, " time"], rate: int
    ) -> UInt8[np.ndarray, "frames mels 1"]:
        """Computes the spectrogram of a sound."""
        logs = log_mel(
            samples,
            rate,
            window=self.window,
            hop=self.hop,
            # Twice the next power of two: the lowest bands are too narrow for a shorter transform.
            transform=2 << (round(self.window * rate) - 1).bit_length(),
            mels=self.mels,
            low=self.low,
            high=self.high,
        )
        # Natural logarithms of power to decibels, then [lowest, highest] to [0, 1].
        share = (10 / np.log(10) * logs - self.lowest) / (self.highest - self.lowest)
        return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)[:, :, None]
