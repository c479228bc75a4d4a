"""Contracts of the model's parts, as protocols.

Any Flax module with the right call is an encoder, a fusion, a sharing or a head, and any such
callable an objective; nothing derives from these classes. Type checkers compare signatures; at run
time `isinstance` checks that the methods exist. Axes: `b` examples, `n` tokens, `d`, `e` features.

Example:
  >>> from mmjax import encoders, fusion, heads, sharing
  >>> isinstance(encoders.MLPEncoder(), Encoder), isinstance(fusion.Concat(), Fusion)
  (True, True)
  >>> isinstance(sharing.HardSharing(), Sharing), isinstance(heads.Regression(), Head)
  (True, True)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Num

from mmjax.types import Batch, Branches, Intermediates, Tokens

if TYPE_CHECKING:  # A part of the model should not need the data packages.
    from mmjax.data.dataset import Task


@runtime_checkable
class Encoder(Protocol):
    """Turns one modality's array into tokens.

    The model zeroes the input of absent examples and behind `length` before the call, and masks the
    tokens of absent examples after it. Values behind `length` must have no effect, a sequence of
    length 0 gives zeros, and an example must not depend on the others of the batch. An optional
    method `check(modality, name)` raises ValueError if the data do not fit.
    """

    def __call__(
        self, x: Num[Array, "b ..."], length: Int[Array, " b"] | None = None, *, train: bool
    ) -> Tokens:
        """Maps x [b ...] to tokens: values [b n d] and a mask [b n] of the tokens that count.

        Args:
          x: the modality's array, time first for a sequence: [b time ...].
          length: true lengths of sequences; None if every step is real, or x is not a sequence.
          train: whether dropout is active; random numbers come from the key "dropout".
        """
        ...


@runtime_checkable
class Fusion(Protocol):
    """Turns the tokens of all modalities into one vector per example.

    Masked tokens may hold NaN and must have no effect on values or gradients. A modality without
    unmasked tokens is absent; an example without any modality must give finite values. Values
    that objectives need are sown as "intermediates".
    """

    def __call__(self, tokens: dict[str, Tokens], *, train: bool) -> Float[Array, "b d"] | Branches:
        """Maps {modality: values [b n d_m], mask [b n]} to [b d], or to one branch per modality.

        Args:
          tokens: of every modality; the number n of tokens may differ between modalities.
          train: whether dropout is active; random numbers come from the key "dropout".
        """
        ...


@runtime_checkable
class Sharing(Protocol):
    """Turns the fused vector into features for each task.

    Parameters named own_... belong to one task alone, with the tasks as leading axis; all others
    count as shared by the tasks. An optional method `copies(tasks)` requests copies of encoders and
    fusion; see `mmjax.sharing.Copies`.
    """

    def __call__(self, x: Any, tasks: Sequence[str], *, train: bool) -> dict[str, Any]:
        """Maps [b d], or requested copies [n b d], to {task: [b e]}.

        Args:
          x: the fused vector, or `Copies` of it.
          tasks: names of the tasks, sorted; their order must have no effect on the results.
          train: whether dropout is active; random numbers come from the key "dropout".
        """
        ...


@runtime_checkable
class Head(Protocol):
    """Turns a task's features into a prediction, with the loss and the metrics of the task.

    All methods but the call are pure, need no parameters, and are for ONE example. A head whose
    attribute `class_weights` is not None has a method `weigh_target(target)`: the weight of an
    example in the training loss. It may have a method `weighted_loss(prediction, target)`, which
    takes the place of `example_loss` in training.

    Attributes:
      features: the input of the call: "vector" [b d], "tokens" [b n d], or "any" of both.
      metrics: {metric of `summary`: whether its maximum or its minimum is best}.
    """

    @property
    def features(self) -> Literal["vector", "tokens", "any"]:
        """Returns what the head is called with."""
        ...

    @property
    def metrics(self) -> Mapping[str, Literal["max", "min"]]:
        """Returns the metrics and which direction is better."""
        ...

    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """Maps features [b d] or [b n d] to predictions [b ...], at least float32."""
        ...

    def example_loss(self, prediction: Any, target: Any) -> Any:
        """Computes the loss of one example; a target of zeros must be valid."""
        ...

    def statistics(self, prediction: Any, target: Any) -> dict[str, Any]:
        """Computes one example's terms: they are summed or, if `PerExample`, kept."""
        ...

    def summary(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Computes the metrics from the statistics of a split, on the host."""
        ...

    def check(self, task: "Task", name: str) -> None:
        """Raises ValueError unless the head fits the task of that name."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Computes an auxiliary loss from intermediate values of the model."""

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Any],
        batch: Batch,
        *,
        train: bool,
        gather: Callable[[Any], Any],
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Returns (total, count) in float32 for this device's part of the batch.

        The loss is the sum of the totals over the sum of the counts of all devices; (0, 0) if no
        example contributes.

        Args:
          seen: the model's intermediate values.
          predictions: those of the heads, {task: [b ...]}.
          batch: the batch, with zeros for everything that is missing.
          train: whether dropout is active; random numbers come from the key "dropout".
          gather: collects x [b ...] from all devices along the batch axis.
        """
        ...
