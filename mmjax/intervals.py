"""Means over seeds with their intervals, as numbers and as text."""

import math
from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half the width of its 95% interval (Student's t) over seeds; NaN for one seed."""
    from scipy import stats

    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(np.mean(values)), float(half)


def format_mean(values: Sequence[float]) -> str:
    """Formats a metric over the seeds: its mean, and of several seeds half its interval."""
    mean, half = mean_interval(values)
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
