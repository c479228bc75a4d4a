"""What values a search may try: distributions of numbers and choices of texts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Uniform(NamedTuple):
    """Numbers from `low` to `high`, each as likely."""

    low: float
    high: float


class LogUniform(NamedTuple):
    """Numbers from `low` to `high`, each order of magnitude as likely."""

    low: float
    high: float


class Choice(NamedTuple):
    """Values as they are written for `--set`, each as likely."""

    values: tuple[str, ...]


Distribution = Uniform | LogUniform | Choice


def draw(distribution: Distribution, rng: np.random.Generator) -> str:
    """One value as text."""
    if isinstance(distribution, Choice):
        return str(distribution.values[rng.integers(len(distribution.values))])
    low, high = distribution
    if isinstance(distribution, LogUniform):
        return repr(float(np.exp(rng.uniform(np.log(low), np.log(high)))))
    return repr(float(rng.uniform(low, high)))


def to_optuna(space: Mapping[str, Distribution]) -> dict[str, Any]:
    """The same distributions as Optuna has them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    def one(distribution: Distribution) -> Any:
        if isinstance(distribution, Choice):
            return CategoricalDistribution(distribution.values)
        low, high = distribution
        return FloatDistribution(low, high, log=isinstance(distribution, LogUniform))

    return {path: one(distribution) for path, distribution in space.items()}
