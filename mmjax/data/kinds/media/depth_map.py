"""Depth maps: a positive number per pixel, from the levels of an image file or an array."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.dataset import Task
from mmjax.data.kinds.media.mask import read_levels
from mmjax.data.limits import MAX_PIXELS, check_file_size
from mmjax.data.load.decode import UnreadableError, check_file_exists


class DepthMap(NamedTuple):
    """A positive number per pixel, in an image file of gray levels or a NumPy file.

    Attributes:
      column: holds the path to a PNG or TIFF file, usually of 16 bits, or to a .npy file.
      scale: the depth of level 1, such as 0.001 for millimeters in meters.
      unit: unit of the depth.
      size: (height, width) to resize to, by the nearest pixel; None: all must have one size.
      ignore: level of a pixel without a measurement, as NaN is in a .npy file.
      max_pixels: the largest map that is decoded, by the size that its header declares.

    Example:
      >>> DepthMap("depth", scale=0.001, unit="m").read_feature([np.array([[0, 1500]])]).tolist()
      [[0.0, 1.5]]
    """

    column: str
    scale: float = 1.0
    unit: str = ""
    size: tuple[int, int] | None = None
    ignore: float = 0
    max_pixels: int = MAX_PIXELS

    def read_cells(self, cells: Sequence[Any], folder: Path) -> Float[np.ndarray, "h w"]:
        """Reads the depth map whose file name is in the cell; 0 means not measured."""
        path = folder / str(cells[0])
        if path.suffix.lower() == ".npy":
            return self._convert(_read_npy(path, self.max_pixels), str(path), self.size)
        return self._convert(read_levels(path, self.size, self.max_pixels), str(path))

    def read_feature(self, values: Sequence[Any]) -> Float[np.ndarray, "h w"]:
        """Converts numbers [h w] or [h w 1]."""
        return self._convert(np.asarray(values[0]), "the depth map")

    def declare_task(self) -> Task:
        """Returns the task of depths; its shape is measured."""
        return Task("depth", unit=self.unit)

    def _convert(
        self, levels: np.ndarray, what: str, size: tuple[int, int] | None = None
    ) -> Float[np.ndarray, "h w"]:
        levels = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
        if levels.ndim != 2 or levels.dtype.kind not in "iuf":
            raise ValueError(
                f"{what} is {levels.dtype}{list(levels.shape)}; a depth map must be numbers "
                "[height, width]."
            )
        if size is not None:
            # The centers of the new pixels, as Pillow's nearest neighbor takes them.
            rows = ((np.arange(size[0]) + 0.5) * levels.shape[0] / size[0]).astype(int)
            columns = ((np.arange(size[1]) + 0.5) * levels.shape[1] / size[1]).astype(int)
            levels = levels[rows][:, columns]
        unmeasured = np.isnan(levels) | (levels == self.ignore)
        depth = np.where(unmeasured, 0.0, levels.astype(np.float64) * self.scale)
        if not np.isfinite(depth).all() or (depth < 0).any():
            bad = depth[~np.isfinite(depth) | (depth < 0)][0]
            raise ValueError(f"{what} has the depth {bad}; depths must be positive and finite.")
        return depth.astype(np.float32)


def _read_npy(path: Path, max_pixels: int) -> np.ndarray:
    check_file_exists(path)
    check_file_size(path, 8 * max_pixels + 4096, "max_pixels")
    try:
        # A memory map refuses a header that declares more than the file has.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableError(f"{path} is not a whole .npy file: {error}.") from None
