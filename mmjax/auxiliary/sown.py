"""A value that a part of the model sows, as a loss."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums
from mmjax.types import Batch, Seen


@dataclasses.dataclass(frozen=True)
class Sown:
    """The mean of a value that the fusion or the sharing sows.

    `Sown("sharing", "entropy")`, which the balancer weighs by λ, is the regulariser of
    `sharing.DSelectK` (Hazimeh et al., NeurIPS 2021, section 3.3). An entropy is at least 0; other
    values may be negative.

    Attributes:
      part: which of the two sows it.
      name: what it is called there.
    """

    part: Literal["fusion", "sharing"]
    name: str

    def __post_init__(self) -> None:
        if self.part not in ("fusion", "sharing"):
            raise ValueError(f"Sown.part is {self.part!r}; use 'fusion' or 'sharing'.")

    def __call__(
        self,
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Sum and number of the value's elements on this device.

        Raises:
          ValueError: if nothing of that name is sown, or no array.
        """
        del predictions, batch, train, gather
        known: dict[str, Any] = seen.sown[self.part]
        if self.name not in known:
            raise ValueError(
                f"Sown names {self.name!r}, but the model's {self.part} sows only {sorted(known)}."
            )
        value = known[self.name]
        if not isinstance(value, Array):
            raise ValueError(
                f"Sown names {self.name!r}, but what the model's {self.part} sows by that name is "
                "no array; write an objective of your own for it."
            )
        return value.sum(), jnp.asarray(value.size, jnp.float32)
