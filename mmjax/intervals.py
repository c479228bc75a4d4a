"""Means over seeds with their confidence intervals, as numbers and as text."""

import math
from collections.abc import Sequence

import numpy as np


def compute_mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Computes the mean over seeds and half its 95% interval (Student's t; NaN for one seed)."""
    from scipy import stats

    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    # mean ± t_{0.975, n-1} s / sqrt(n) with the unbiased s.
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(np.mean(values)), float(half)


def format_mean_interval(values: Sequence[float]) -> str:
    """Formats a metric over the seeds: its mean and, for several seeds, half its interval.

    Example:
      >>> format_mean_interval([0.9, 0.8, 0.85])
      '0.850 ± 0.124'
    """
    mean, half = compute_mean_interval(values)
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
