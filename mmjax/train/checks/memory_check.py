"""Refuses settings that save memory and do not fit the model or the batch."""

import fnmatch
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from mmjax.config.public_names import did_you_mean


def check_accumulate(batch_size: int, accumulate: int, devices: int, parts: int = 1) -> None:
    """Refuses a batch that cannot be divided evenly into the balancer's parts and micro-batches.

    Args:
      batch_size: examples per step, over all devices.
      accumulate: number of micro-batches per device.
      devices: number of devices.
      parts: number of parts into which the balancer splits a batch.

    Raises:
      ValueError: naming the nearest sizes that can be.

    Example:
      >>> check_accumulate(64, accumulate=4, devices=2)
    """
    unit = accumulate * devices * parts
    if (accumulate > 1 or parts > 1) and batch_size % unit:
        below = batch_size - batch_size % unit
        nearest = f"{below} or {below + unit}" if below else f"{unit}"
        divisor = f"accumulate={accumulate} times " if accumulate > 1 else ""
        split = f", times the {parts} parts that the balancer makes of a batch" if parts > 1 else ""
        raise ValueError(
            f"batch_size={batch_size} is not divisible by {divisor}the number of devices, "
            f"{devices}{split}; choose batch_size={nearest}"
            f"{', or another accumulate' if accumulate > 1 else ''}."
        )


def check_remat(patterns: Sequence[str], params: Any) -> None:
    """Refuses patterns that match no module with parameters.

    Args:
      patterns: `Model.remat`.
      params: the model's parameters, or their shapes.

    Raises:
      ValueError: naming the pattern and the nearest paths.

    Example:
      >>> check_remat(["*/layer*"], {"fusion": {"layer_0": {"kernel": 0}}})
    """
    keys = [keys[:depth] for keys in flatten_dict(params) for depth in range(1, len(keys))]
    paths = sorted({"/".join(k).removeprefix("own_") for k in keys})
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            raise ValueError(
                f"model.remat has the pattern {pattern!r}, which matches no module."
                f"{did_you_mean(pattern, paths)} The model's parts are {', '.join(sorted(params))}."
            )
