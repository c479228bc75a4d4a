"""Losses that a balancer names: their places among all losses."""

from collections.abc import Iterable, Sequence


def find_losses(method: str, names: Iterable[str], losses: Sequence[str]) -> list[int]:
    """Returns the indices of the named losses.

    Raises:
      ValueError: if a name is not that of a loss.

    Example:
      >>> find_losses("mla", ["only_a"], ("digit", "only_a", "only_b"))
      [1]
    """
    for name in names:
        if name not in losses:
            raise ValueError(
                f"{method} names the loss {name!r}, but the model has only {sorted(losses)}; name "
                "its unimodal losses, which are auxiliary objectives."
            )
    return [list(losses).index(name) for name in names]
