"""Search spaces: distributions of numbers, and choices among values."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Uniform(NamedTuple):
    """Uniform distribution of numbers from `low` to `high`.

    Example:
      >>> Uniform(0.0, 0.5)
      Uniform(low=0.0, high=0.5)
    """

    low: float
    high: float


class LogUniform(NamedTuple):
    """Uniform distribution of the logarithms of numbers from `low` to `high`.

    Example:
      >>> LogUniform(1e-4, 1e-2)
      LogUniform(low=0.0001, high=0.01)
    """

    low: float
    high: float


class Choice(NamedTuple):
    """Uniform distribution over values, written as for `--set`.

    Example:
      >>> Choice(("Concat()", "Gated(width=64)")).values[0]
      'Concat()'
    """

    values: tuple[str, ...]


Distribution = Uniform | LogUniform | Choice


def draw_value(distribution: Distribution, rng: np.random.Generator) -> str:
    """Draws one value, as text."""
    if isinstance(distribution, Choice):
        return str(distribution.values[rng.integers(len(distribution.values))])
    low, high = distribution
    if isinstance(distribution, LogUniform):
        return repr(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    return repr(float(rng.uniform(low, high)))


def make_optuna_distributions(space: Mapping[str, Distribution]) -> dict[str, Any]:
    """Converts distributions to those of Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    converted: dict[str, Any] = {}
    for path, distribution in space.items():
        if isinstance(distribution, Choice):
            converted[path] = CategoricalDistribution(distribution.values)
        else:
            low, high = distribution
            is_log = isinstance(distribution, LogUniform)
            converted[path] = FloatDistribution(low, high, log=is_log)
    return converted
