"""The generation settings of multi-digit pairs, and the names of their classes."""

import dataclasses
from typing import Any, Literal

from mmjax.data.builtin.generation_config import GenerationConfig

IMAGE_SIDE, CANVAS_SIDE = 28, 36  # sides in pixels
_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CLASS_NAMES = {"mnist": _DIGITS, "fashion-mnist": _CLOTHES}


@dataclasses.dataclass(frozen=True)
class Pairing:
    """The way in which two images are combined into one.

    Attributes:
      offset: pixels by which the second image is lower and to the right of the first.
      same_class: whether a partner may have the class of the first image.
      resize: filter that resizes the canvas to 28x28: the nearest pixel, or Pillow's bilinear one,
        which weights all pixels that a new one covers.

    Example:
      >>> Pairing(offset=6)
      Pairing(offset=6, same_class=False, resize='nearest')
    """

    offset: int = 8
    same_class: bool = False
    resize: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= CANVAS_SIDE - IMAGE_SIDE:
            raise ValueError(
                f"offset is {self.offset}; it must be 0 to {CANVAS_SIDE - IMAGE_SIDE} pixels."
            )
        if self.resize not in ("nearest", "bilinear"):
            raise ValueError(f"resize is {self.resize!r}; it must be 'nearest' or 'bilinear'.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiDigitsConfig(GenerationConfig):
    """The arguments of a data set of pairs.

    Attributes:
      first: the data set of the first images, "mnist" or "fashion-mnist".
      second: the data set of their partners.
      pairing: how two images are combined.
    """

    version: str = "1.0.0"
    first: str
    second: str
    pairing: Pairing

    @property
    def ingredients(self) -> list[Any]:
        """Returns the settings besides the seed and the sizes."""
        return [self.pairing]
