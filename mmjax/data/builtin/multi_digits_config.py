"""What the generation of multi-digit pairs depends on: how two images are paired, and names."""

import dataclasses
from typing import Any, Literal

from mmjax.data.builtin.generation_config import Recipe

IMAGE, CANVAS = 28, 36  # sides, in pixels
DIGITS = tuple("0123456789")
CLOTHES = (
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
CLASSES = {"mnist": DIGITS, "fashion-mnist": CLOTHES}


@dataclasses.dataclass(frozen=True)
class Pairing:
    """How two images become one.

    Attributes:
      offset: pixels by which the second image is lower and to the right of the first.
      same_class: whether a partner may have the class of the first image.
      resize: which filter makes 28x28 of the canvas: the nearest pixel, or Pillow's bilinear one,
        which weighs all pixels that a new one covers.
    """

    offset: int = 8
    same_class: bool = False
    resize: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= CANVAS - IMAGE:
            raise ValueError(f"offset is {self.offset}; it must be 0 to {CANVAS - IMAGE} pixels.")
        if self.resize not in ("nearest", "bilinear"):
            raise ValueError(f"resize is {self.resize!r}; it must be 'nearest' or 'bilinear'.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiDigitsRecipe(Recipe):
    """What makes the pairs.

    Attributes:
      first: the data set of the first images, "mnist" or "fashion-mnist".
      second: that of their partners.
      pairing: how two images become one.
    """

    version: str = "1.0.0"
    first: str
    second: str
    pairing: Pairing

    @property
    def ingredients(self) -> list[Any]:
        """What else the data follow from, besides their name."""
        return [self.pairing]
