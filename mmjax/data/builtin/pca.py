"""Principal components of images, to take a share of their energy away."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8


class Components(NamedTuple):
    """The strongest directions of variation.

    Attributes:
      mean: of every pixel.
      directions: orthonormal rows, the strongest first.
      energy: the share of the variance that lies along each of them.
    """

    mean: Float[np.ndarray, " d"]
    directions: Float[np.ndarray, "k d"]
    energy: Float[np.ndarray, " k"]


def fit_components(images: UInt8[np.ndarray, "n d"], removed: float) -> Components:
    """As few principal components as hold the energy that is to stay.

    Energy is variance about the mean image. The covariance is exact, being made of whole numbers
    that a float64 holds, so it does not depend on the order of summation.

    Args:
      images: flattened, what to fit on.
      removed: the share of the energy that may go, at least 0 and less than 1; 0 keeps all
        components, those without energy too, and so every image as it is.
    """
    total, squares = np.zeros(images.shape[1]), np.zeros((images.shape[1],) * 2)
    for some in np.array_split(images, -(-len(images) // 4096)):
        pixels = some.astype(np.float64)
        total, squares = total + pixels.sum(axis=0), squares + pixels.T @ pixels
    covariance = len(images) * squares - np.outer(total, total)
    values, vectors = np.linalg.eigh(covariance)
    energy = np.maximum(values[::-1], 0) / max(np.maximum(values, 0).sum(), 1)
    enough = int(np.searchsorted(np.cumsum(energy), 1 - removed - 1e-9)) + 1
    kept = min(enough, len(energy)) if removed else len(energy)
    return Components(total / len(images), vectors.T[::-1][:kept], energy[:kept])


def reduced(images: UInt8[np.ndarray, "n d"], components: Components) -> UInt8[np.ndarray, "n d"]:
    """Keeps what lies along the components, with the mean added back, in 8 bits."""
    mean, directions, _ = components
    kept = (images - mean[None]) @ directions.T @ directions + mean[None]
    return np.round(np.clip(kept, 0, 255)).astype(np.uint8)
