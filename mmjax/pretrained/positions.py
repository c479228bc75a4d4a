"""Resizing of learned position tables, for inputs of another size than in pretraining."""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

_KEYS_A = -0.75  # the constant of PyTorch's bicubic kernel, with which vision models were resized


def resize_positions(
    table: Float[np.ndarray, "*one n d"], length: int, kind: Literal["1d", "2d"]
) -> Float[np.ndarray, "*one m d"]:
    """Resizes a table of positions, as `torch.nn.functional.interpolate` without align_corners.

    Args:
      table: one vector per position.
      length: number of positions after it.
      kind: "1d": linear. "2d": bicubic, over a square grid; tokens before the grid stay as they
        are. Their number is the smallest that leaves a square in both tables.

    Raises:
      ValueError: if no number of leading tokens leaves square grids.

    Example:
      >>> resize_positions(np.ones((1 + 14 * 14, 8)), 1 + 16 * 16, "2d").shape
      (257, 8)
    """
    if kind == "1d":
        return np.einsum("mn,...nd->...md", _make_linear_matrix(table.shape[-2], length), table)
    leading = _count_leading_tokens(table.shape[-2], length)
    special, grid = np.split(table, [leading], axis=-2)
    old, new = math.isqrt(grid.shape[-2]), math.isqrt(length - leading)
    grid = grid.reshape(*grid.shape[:-2], old, old, grid.shape[-1])
    matrix = make_cubic_matrix(old, new)
    # Bicubic resizing is separable: one matrix for rows, the same one for columns.
    grid = np.einsum("ij,kl,...jld->...ikd", matrix, matrix, grid)
    return np.concatenate([special, grid.reshape(*grid.shape[:-3], new * new, -1)], axis=-2)


def _count_leading_tokens(old: int, new: int) -> int:
    for leading in range(min(old, new)):
        if all(math.isqrt(n - leading) ** 2 == n - leading for n in (old, new)):
            return leading
    raise ValueError(f"{old} and {new} positions are not square grids after the same first tokens")


def _sample_points(old: int, new: int) -> Float[np.ndarray, " m"]:
    """Returns where the centers of the new cells lie, in units of old cells."""
    # Pixel centers are aligned, as with align_corners=False.
    return (np.arange(new) + 0.5) * old / new - 0.5


def _make_linear_matrix(old: int, new: int) -> Float[np.ndarray, "m n"]:
    points = np.clip(_sample_points(old, new), 0, old - 1)
    return np.maximum(0.0, 1.0 - np.abs(points[:, None] - np.arange(old)))


def make_cubic_matrix(old: int, new: int) -> Float[np.ndarray, "m n"]:
    """Returns the weights of cubic convolution (Keys, 1981); the border is repeated.

    Example:
      >>> make_cubic_matrix(4, 2).sum(axis=1).tolist()
      [1.0, 1.0]
    """
    points = _sample_points(old, new)
    matrix = np.zeros((new, old))
    for offset in range(-1, 3):
        cell = np.floor(points).astype(int) + offset
        t, a = np.abs(points - cell), _KEYS_A
        # Keys' cubic convolution kernel (1981): (a+2)|t|^3 - (a+3)|t|^2 + 1 for |t| <= 1 and
        # a|t|^3 - 5a|t|^2 + 8a|t| - 4a for 1 < |t| < 2.
        near = ((a + 2) * t - (a + 3)) * t * t + 1
        far = ((t - 5) * t + 8) * t * a - 4 * a
        np.add.at(
            matrix,
            (np.arange(new), np.clip(cell, 0, old - 1)),
            np.where(t <= 1, near, np.where(t < 2, far, 0.0)),
        )
    return matrix
