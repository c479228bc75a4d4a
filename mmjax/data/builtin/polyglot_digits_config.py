"""The generation settings of polyglot_digits, and its modalities and tasks."""

import dataclasses
from typing import Any

from mmjax.data.builtin.generation_config import GenerationConfig
from mmjax.data.dataset import Modality, Task
from mmjax.data.load.decode import BYTE_TOKEN_NAMES

LANGUAGES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pl": "Polish",
    "fi": "Finnish",
    "hu": "Hungarian",
    "tr": "Turkish",
}
MODALITIES = {
    "image": Modality((8, 8, 1)),
    "speech": Modality((48, 24), sequence=True),
    "text": Modality((12,), sequence=True, vocabulary=BYTE_TOKEN_NAMES),
}
TASKS = {
    "digit": Task("classification", classes=tuple("0123456789")),
    "language": Task("classification", classes=tuple(LANGUAGES.values())),
    "rate": Task("regression", unit="words/min"),
}


@dataclasses.dataclass(frozen=True)
class Noise:
    """The levels of the noise, which make the data hard.

    Attributes:
      pixels: standard deviation of the noise of a pixel, whose range is 0 to 1.
      snr: minimum and maximum ratio of speech to background noise, in decibels.
      typing: share of a word's letters that are mistyped.

    Example:
      >>> Noise(pixels=0.5).typing
      0.24
    """

    pixels: float = 0.25
    snr: tuple[float, float] = (0.0, 12.0)
    typing: float = 0.24


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolyglotDigitsConfig(GenerationConfig):
    """The arguments of `polyglot_digits`."""

    dataset: str = "polyglot_digits"
    version: str = "1.0.0"
    missing_modalities: float
    missing_labels: float
    missing_in_evaluation: float
    noise: Noise

    def __post_init__(self) -> None:
        super().__post_init__()
        for share in ("missing_modalities", "missing_labels", "missing_in_evaluation"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"{share} is {getattr(self, share)}; it must be 0 to 1.")

    @property
    def ingredients(self) -> list[Any]:
        """Returns the settings besides the seed and the sizes."""
        shares = self.missing_modalities, self.missing_labels, self.missing_in_evaluation
        return [self.noise, *map(float, shares)]
