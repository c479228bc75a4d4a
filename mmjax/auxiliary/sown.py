"""A loss that a part of the model sows."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array

from mmjax.auxiliary.base import Gather, Sums
from mmjax.types import Batch, Intermediates


@dataclasses.dataclass(frozen=True)
class Sown:
    """The mean of a value that the fusion or the sharing sows.

    `Sown("sharing", "entropy")`, which the balancer weighs by λ, is the regularizer of
    `sharing.DSelectK` (Hazimeh et al., NeurIPS 2021, section 3.3). An entropy is at least 0; other
    values may be negative. Of a sown pair (value, mask of its shape) it is the mean over the marked
    elements: `Sown("fusion", "reconstruction")` is the loss of `fusion.ActionMAE`.

    Attributes:
      part: "fusion" or "sharing".
      name: of the sown value.

    Example:
      >>> seen = Intermediates({}, None, {}, {"sharing": {"entropy": jnp.array([1.0, 3.0])}})
      >>> batch = Batch({}, {}, {}, {}, {})
      >>> objective = Sown("sharing", "entropy")
      >>> total, count = objective(seen, {}, batch, train=False, gather=lambda x: x)
      >>> float(total / count)
      2.0
    """

    part: Literal["fusion", "sharing"]
    name: str

    def __post_init__(self) -> None:
        if self.part not in ("fusion", "sharing"):
            raise ValueError(f"Sown.part is {self.part!r}; use 'fusion' or 'sharing'.")

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns sum and number of the value's elements on this device.

        Raises:
          ValueError: if no value of that name is sown, or it is not an array.
        """
        del predictions, batch, train, gather
        sown: dict[str, Any] = seen.sown[self.part]
        if self.name not in sown:
            raise ValueError(
                f"Sown names {self.name!r}, but the model's {self.part} sows "
                f"{f'only {sorted(sown)}' if sown else 'nothing'}; use another name or {self.part}."
            )
        value = sown[self.name]
        if _is_masked(value):
            value, mask = value
            return jnp.where(mask, value, 0).sum(), mask.sum().astype(jnp.float32)
        if not isinstance(value, Array):
            raise ValueError(
                f"Sown names {self.name!r}, but the model's {self.part} sows under that name a "
                f"{type(value).__name__}, not an array; write a custom objective for it."
            )
        return value.sum(), jnp.asarray(value.size, jnp.float32)


def _is_masked(value: Any) -> bool:
    """Returns whether a sown value is a pair of an array and the mask of what counts of it."""
    if not (isinstance(value, tuple) and len(value) == 2):
        return False
    return isinstance(value[1], Array) and value[1].dtype.kind == "b"
