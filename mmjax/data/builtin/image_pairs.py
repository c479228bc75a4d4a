"""Two images become one: partners of another class, overlapped on a canvas, resized."""

import numpy as np
from jaxtyping import Int, Integer, UInt8


def partners(
    classes: Integer[np.ndarray, " b"],
    others: Integer[np.ndarray, " n"],
    rng: np.random.Generator,
    *,
    same_class: bool,
) -> Int[np.ndarray, " b"]:
    """Draws for each of `classes` the place of a partner in `others`, with replacement.

    Raises:
      ValueError: if partners must differ in class and a class has none that do.
    """
    if same_class:
        return rng.integers(len(others), size=len(classes))
    chosen = np.empty(len(classes), int)
    for one in np.unique(classes):
        here, fitting = classes == one, np.flatnonzero(others != one)
        if not len(fitting):
            raise ValueError(f"class {one} has no partner of another class among {len(others)}.")
        chosen[here] = rng.choice(fitting, here.sum())
    return chosen


def overlapped(
    first: UInt8[np.ndarray, "b s s"],
    second: UInt8[np.ndarray, "b s s"],
    offset: int,
    side: int,
) -> UInt8[np.ndarray, "b {side} {side}"]:
    """The first at the upper left of a canvas, the second `offset` further, by the maximum."""
    canvas = np.zeros((len(first), side, side), np.uint8)
    size = first.shape[1]
    canvas[:, :size, :size] = first
    place = canvas[:, offset : offset + size, offset : offset + size]
    np.maximum(place, second, out=place)
    return canvas


def nearest(images: UInt8[np.ndarray, "b s s"], side: int) -> UInt8[np.ndarray, "b {side} {side}"]:
    """Resizes by taking the pixel in which the new pixel's centre lies."""
    size = images.shape[1]
    source = (2 * np.arange(side) + 1) * size // (2 * side)
    return images[:, source[:, None], source[None]]


def bilinear(images: UInt8[np.ndarray, "b s s"], side: int) -> UInt8[np.ndarray, "b {side} {side}"]:
    """Resizes by Pillow's bilinear filter, which covers all pixels when it shrinks."""
    from PIL import Image

    filtered = Image.Resampling.BILINEAR
    return np.stack([np.array(Image.fromarray(i).resize((side, side), filtered)) for i in images])
