"""Any Flax module as an encoder."""

import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int, Num

from mmjax.encoders.mlp import one_token
from mmjax.encoders.sequence import time_mask
from mmjax.types import Tokens


class Wrap(nn.Module):
    """Makes tokens of what a module x -> [b d] or [b n d] returns.

    The module may have parameters but no other variables. If its `__call__` has an argument
    `train` or `deterministic`, it is told whether this is training; if it has one `length`, it gets
    the true lengths, or None.

    Attributes:
      module: takes the modality's array as it is, integer pixels and tokens too, and returns a
        vector an example, or one for every step of time.
    """

    module: nn.Module

    @nn.compact
    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """[b ...] to tokens; with lengths, padding goes in as zeros and comes out masked.

        Raises:
          ValueError: if the module returns something else, or keeps other variables.
        """
        if length is not None:
            inside = jnp.expand_dims(time_mask(x, length), range(2, x.ndim))
            x = jnp.where(inside, x, jnp.zeros((), x.dtype))
        known = {"train": train, "deterministic": not train, "length": length}
        taken = inspect.signature(type(self.module).__call__).parameters
        y = self.module(x, **{k: v for k, v in known.items() if k in taken})
        self.check_variables()
        return as_tokens(y, x, length, type(self.module).__name__)

    def check_variables(self) -> None:
        """Raises ValueError if there are variables that no optimizer would train."""
        others = sorted(set(self.variables) - {"params", "intermediates"})
        if others:
            raise ValueError(
                f"{type(self.module).__name__} keeps {', '.join(others)}, and an encoder may have "
                "parameters only; use group or layer norm in it instead of batch norm."
            )


def as_tokens(y: Any, x: Num[Array, "b ..."], length: Int[Array, " b"] | None, name: str) -> Tokens:
    """What a module `name` made of x, as tokens; zeros where an example is empty."""
    shape: tuple[int, ...] = getattr(y, "shape", ())
    if len(shape) not in (2, 3) or shape[0] != x.shape[0]:
        raise ValueError(
            f"{name} made {shape or type(y).__name__} of {x.shape}; an encoder returns vectors "
            "[b d] or [b n d]."
        )
    if length is None:
        return one_token(y) if y.ndim == 2 else Tokens(y, jnp.ones(shape[:2], dtype=bool))
    if y.ndim == 2:
        return one_token(jnp.where((length > 0)[:, None], y, 0))
    if shape[1] != x.shape[1]:
        raise ValueError(
            f"{name} made {shape[1]} steps of {x.shape[1]}, so it is not known which of them are "
            "padding; let it return as many as it gets, or one vector [b d]."
        )
    mask = time_mask(y, length)
    return Tokens(jnp.where(mask[:, :, None], y, 0), mask)
