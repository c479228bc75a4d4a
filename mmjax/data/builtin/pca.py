"""Principal components of images, to remove a share of their energy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8


class Components(NamedTuple):
    """The strongest directions of variation.

    Attributes:
      mean: mean of every pixel.
      directions: orthonormal rows, the strongest first.
      energy: share of the variance along each of them.
    """

    mean: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "k d"]
    energy: Float[np.ndarray, " k"]


def fit_components(images: UInt8[np.ndarray, "n d"], removed: float) -> Components:
    """Fits the smallest number of principal components that hold the energy to keep.

    Energy is variance about the mean image. The covariance is exact, since it consists of integers
    that float64 represents, so it does not depend on the order of summation.

    Args:
      images: flattened images to fit on.
      removed: the share of the energy that may be removed, at least 0 and less than 1; 0 keeps all
        components, even those without energy, and so leaves every image unchanged.

    Example:
      >>> line = np.array([[0, 0], [2, 2], [4, 4]], np.uint8)
      >>> fit_components(line, removed=0.5).directions.shape
      (1, 2)
    """
    total, squares = np.zeros(images.shape[1]), np.zeros((images.shape[1],) * 2)
    for chunk in np.array_split(images, -(-len(images) // 4096)):
        pixels = chunk.astype(np.float64)
        total, squares = total + pixels.sum(axis=0), squares + pixels.T @ pixels
    # n^2 times the covariance, n sum x x^T - (sum x)(sum x)^T, which is exact for integer pixels.
    covariance = len(images) * squares - np.outer(total, total)
    values, vectors = np.linalg.eigh(covariance)
    # `eigh` returns eigenvalues in ascending order; the energy is the share of the variance.
    energy = np.maximum(values[::-1], 0) / max(np.maximum(values, 0).sum(), 1)
    # The tolerance keeps rounding in the sum from adding a component that is not needed.
    enough = int(np.searchsorted(np.cumsum(energy), 1 - removed - 1e-9)) + 1
    count = min(enough, len(energy)) if removed else len(energy)
    return Components(total / len(images), vectors.T[::-1][:count], energy[:count])


def project_onto_components(
    images: UInt8[np.ndarray, "n d"], components: Components
) -> UInt8[np.ndarray, "n d"]:
    """Projects images onto the components, adds the mean and rounds to 8 bits."""
    mean, directions, _ = components
    # mean + V^T V (x - mean) with the directions as the rows of V.
    projected = (images - mean[None]) @ directions.T @ directions + mean[None]
    # The projection can leave the range of pixels.
    return np.round(np.clip(projected, 0, 255)).astype(np.uint8)
