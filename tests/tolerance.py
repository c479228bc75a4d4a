"""How far float32 sums may lie apart: bounds from the arithmetic, which hold on every processor.

Libraries add the same products in different orders and numbers of lanes, with or without fused
multiplications. Each order of n products is off by at most n u times the sum of their absolute
values, with u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

import numpy as np

UNIT_ROUNDOFF = 2.0**-24


def bound_sum_error(terms, magnitude):
    """Bounds the error of float32 sums of products.

    Args:
      terms: number of products in a sum.
      magnitude: the sum of their absolute values, for each sum.
    """
    return terms * UNIT_ROUNDOFF * np.asarray(magnitude, np.float64)


def bound_difference(terms, magnitude=1.0):
    """Bounds the difference of two float32 sums of the same products, for use as `atol` or `rtol`.

    Args:
      terms: number of products, times the number of layers of such sums.
      magnitude: the sum of their absolute values; as `rtol`, that divided by the sum.
    """
    return 2 * bound_sum_error(terms, magnitude)


def assert_within(actual, expected, error):
    """Asserts that no entry differs by more than the entry of `error`."""
    difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64))
    excess = np.max(difference - error, initial=0)
    assert excess <= 0, f"an entry is off by {excess:.3g} more than its bound; {difference.max()=}"


def assert_equal_sums(actual, expected, terms):
    """Asserts that two float32 results of sums of so many products agree up to rounding.

    It takes the largest entry in place of the absolute values of products. Those cancel to about
    the square root of their number, but so do the errors.
    """
    largest = np.max(np.abs(np.asarray(expected, np.float64)), initial=0)
    assert_within(actual, expected, bound_difference(terms, largest))
