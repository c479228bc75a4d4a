"""Pairs of images of different classes, overlapped on one canvas and resized."""

import numpy as np
from jaxtyping import Int, Integer, UInt8


def draw_partners(
    classes: Integer[np.ndarray, " b"],
    others: Integer[np.ndarray, " n"],
    rng: np.random.Generator,
    *,
    same_class: bool,
) -> Int[np.ndarray, " b"]:
    """Draws for each of `classes` the index of a partner in `others`, with replacement.

    Raises:
      ValueError: if partners must differ in class and a class has none that do.

    Example:
      >>> classes, rng = np.array([3, 7]), np.random.default_rng(0)
      >>> draw_partners(classes, classes, rng, same_class=False).tolist()
      [1, 0]
    """
    if same_class:
        return rng.integers(len(others), size=len(classes))
    chosen = np.empty(len(classes), int)
    for label in np.unique(classes):
        has_label, candidates = classes == label, np.flatnonzero(others != label)
        if not len(candidates):
            raise ValueError(f"class {label} has no partner of another class among {len(others)}.")
        chosen[has_label] = rng.choice(candidates, has_label.sum())
    return chosen


def overlap_images(
    first: UInt8[np.ndarray, "b s s"],
    second: UInt8[np.ndarray, "b s s"],
    offset: int,
    side: int,
) -> UInt8[np.ndarray, "b {side} {side}"]:
    """Overlaps images on a canvas by the maximum, the second ones lower and to the right.

    Args:
      first: the images at the upper left corner.
      second: the images `offset` pixels lower and to the right.
      offset: in pixels.
      side: side of the canvas, in pixels.
    """
    canvas = np.zeros((len(first), side, side), np.uint8)
    size = first.shape[1]
    canvas[:, :size, :size] = first
    region = canvas[:, offset : offset + size, offset : offset + size]
    # `region` is a view, so that this writes into the canvas.
    np.maximum(region, second, out=region)
    return canvas


def resize_nearest(
    images: UInt8[np.ndarray, "b s s"], side: int
) -> UInt8[np.ndarray, "b {side} {side}"]:
    """Resizes by taking the pixel in which the center of the new pixel lies.

    Example:
      >>> resize_nearest(np.array([[[1, 2], [3, 4]]], np.uint8), side=1).tolist()
      [[[4]]]
    """
    size = images.shape[1]
    # floor((i + 1/2) size / side) in integers: the source pixel below the center of the new one.
    source = (2 * np.arange(side) + 1) * size // (2 * side)
    return images[:, source[:, None], source[None]]


def resize_bilinear(
    images: UInt8[np.ndarray, "b s s"], side: int
) -> UInt8[np.ndarray, "b {side} {side}"]:
    """Resizes by Pillow's bilinear filter, which averages over all pixels when it shrinks."""
    from PIL import Image

    filtered = Image.Resampling.BILINEAR
    return np.stack([np.array(Image.fromarray(i).resize((side, side), filtered)) for i in images])
