"""The settings from which a data set is generated, without the packages that generate it."""

import dataclasses
import hashlib
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """The settings of a generated data set; its files are stored under a name that they define.

    Attributes:
      dataset: name of the data set.
      version: version of what is generated; whoever changes that must change the version, or old
        files are read.
      seed: random seed of everything that is drawn.
      sizes: {split: number of examples}.

    Raises:
      ValueError: if the seed or a size is out of range.

    Example:
      >>> GenerationConfig(dataset="ramp", version="1.0.0", seed=3, sizes={"train": 4}).name
      'seed3-6c99d0d3628a'
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
        """Returns the settings besides the seed and the sizes."""
        return []

    @property
    def name(self) -> str:
        """Returns the name of the folder of the files.

        It contains a hash of the `repr` of all settings: new names of their classes or fields would
        orphan the data on users' disks.
        """
        text = repr([self.sizes, *self.ingredients])
        return f"seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
