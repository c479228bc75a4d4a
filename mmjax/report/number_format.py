"""Numbers as text, with as many digits as they are worth."""

import numpy as np
from jaxtyping import Float


def decimals(mean: float, half: float) -> int:
    """Places behind the point: two digits of half an interval, or else three of a mean."""
    count, size = (2, half) if half > 0 else (3, abs(mean))
    return int(np.clip(count - 1 - np.floor(np.log10(size)), 0, 6)) if size > 0 else 3


def typical(means: Float[np.ndarray, " a"], halves: Float[np.ndarray, " a"]) -> int:
    """The places behind the point that suit a column: those of its medians."""
    known, wide = means[~np.isnan(means)], halves[halves > 0]
    half = float(np.median(wide)) if wide.size else float("nan")
    return decimals(float(np.median(np.abs(known))) if known.size else 0.0, half)


def interval(mean: float, half: float, places: int) -> str:
    """A mean and half the width of its interval, if there is one."""
    return fixed(mean, places) + ("" if np.isnan(half) else f" ± {fixed(half, places)}")


def fixed(value: float, places: int) -> str:
    """A number with so many places behind the point, and a true minus sign."""
    return f"{value:,.{places}f}".replace("-", "−")


def probability(p: float) -> str:
    """A p; NaN is that of no test."""
    if np.isnan(p):
        return "no test"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def short(value: float) -> str:
    """A number of any size: whole with commas, or to three digits."""
    if np.isnan(value):
        return "unknown"
    return f"{value:,.0f}" if value == np.round(value) or abs(value) >= 1000 else f"{value:.3g}"
