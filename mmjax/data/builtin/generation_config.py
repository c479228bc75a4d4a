"""What a data set of our own making is made by, without the packages that make it."""

import dataclasses
import hashlib
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What makes a data set; each recipe's files are stored under a name of its own.

    Attributes:
      dataset: the data set's name.
      version: of what is generated; a change of it must come with a new one, or old files are read.
      seed: of everything that is drawn.
      sizes: {split: number of examples}.

    Raises:
      ValueError: if the seed or a size is out of range.
    """

    dataset: str
    version: str
    seed: int
    sizes: dict[str, int]

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be at least 0.")
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{split} is {size}; a split needs at least 1 example.")

    @property
    def ingredients(self) -> list[Any]:
        """What else the data follow from, besides the seed and the sizes."""
        return []

    @property
    def name(self) -> str:
        """The folder of the files."""
        text = repr([self.sizes, *self.ingredients])
        return f"seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
