"""Formats numbers with as many digits as their uncertainty justifies."""

import numpy as np
from jaxtyping import Float


def count_decimals(mean: float, half: float) -> int:
    """Returns the decimals that show two digits of half an interval, or else three of the mean.

    Example:
      >>> count_decimals(0.9123, 0.0314)
      3
    """
    count, size = (2, half) if half > 0 else (3, abs(mean))
    return int(np.clip(count - 1 - np.floor(np.log10(size)), 0, 6)) if size > 0 else 3


def choose_column_decimals(means: Float[np.ndarray, " a"], halves: Float[np.ndarray, " a"]) -> int:
    """Returns the decimals of a column: those of its medians."""
    known, positive = means[~np.isnan(means)], halves[halves > 0]
    half = float(np.median(positive)) if positive.size else float("nan")
    return count_decimals(float(np.median(np.abs(known))) if known.size else 0.0, half)


def format_interval(mean: float, half: float, places: int) -> str:
    """Formats a mean and half the width of its interval (NaN for none).

    Example:
      >>> format_interval(0.9123, 0.0314, 3)
      '0.912 ± 0.031'
    """
    return format_fixed(mean, places) + (
        "" if np.isnan(half) else f" ± {format_fixed(half, places)}"
    )


def format_fixed(value: float, places: int) -> str:
    """Formats a number with this many decimals and a typographic minus sign."""
    return f"{value:,.{places}f}".replace("-", "−")


def format_p_value(p: float) -> str:
    """Formats a p-value; NaN means that nothing was tested."""
    if np.isnan(p):
        return "no test"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_number(value: float) -> str:
    """Formats a number of any size: integers with commas, others with three digits.

    Example:
      >>> format_number(1234567.0), format_number(0.01234)
      ('1,234,567', '0.0123')
    """
    if np.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if value == np.round(value) or abs(value) >= 1000 else f"{value:.3g}"
