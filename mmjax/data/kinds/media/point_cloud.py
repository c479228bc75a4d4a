"""Point clouds: sets of points in space."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.load.decode import convert_tensor
from mmjax.data.load.tables.table_files import parse_number


class PointCloudModality(Modality):
    """Points [points, dimensions], padded to the largest cloud; their order has no meaning."""

    __slots__ = ()

    def describe(self) -> str:
        """Describes the shape of an example."""
        points, dimensions = self.shape
        return f"up to {points} points in {dimensions} dimensions"


class PointCloud(NamedTuple):
    """A set of points [points, dimensions], whose number may differ between examples.

    `mmjax.encoders.DeepSetsEncoder` encodes it, whatever the order of the points.

    Attributes:
      column: holds the points of each example: an entry of `from_arrays` (an array, or a list of
        arrays), a column of nested lists of a Parquet file, or a TFDS tensor [n d].

    Example:
      >>> import contextlib, io, mmjax
      >>> rng = np.random.default_rng(0)
      >>> split = {
      ...     "scan": [rng.normal(size=(3, 2)), None, rng.normal(size=(5, 2))],  # None: missing
      ...     "weight": [1.0, 2.0, 3.0],
      ...     "size": [0.5, 1.5, 2.5],
      ... }
      >>> inputs = [PointCloud("scan"), "weight"]
      >>> with contextlib.redirect_stderr(io.StringIO()):  # what was inferred is printed there
      ...     data = mmjax.data.from_arrays({"train": split}, inputs, ["size"])
      >>> data.modalities["scan"].describe()
      'up to 5 points in 2 dimensions'
      >>> data.splits["train"].batch.lengths["scan"].tolist()
      [3, 0, 5]
    """

    column: str

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells are lists of lists."""
        return all(isinstance(cell, list) and cell and isinstance(cell[0], list) for cell in cells)

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Returns nothing: points need no training split."""
        return {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray | None:
        """Converts a list of points; None if it is empty."""
        points = [[parse_number(number) for number in point] for point in cells[0]]
        if len({len(point) for point in points}) > 1:
            raise ValueError("its points have different numbers of coordinates.")
        return _check_points(np.array(points, np.float64)) if points else None

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Converts a tensor [n d]; None if it is empty or all NaN."""
        points = convert_tensor(values[0])
        return None if points is None else _check_points(points)

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns the modality of points."""
        return PointCloudModality((), True)

    def convert_modality(self, modality: Modality) -> Modality:
        """Declares arrays to be points.

        Raises:
          ValueError: if they are not [points, dimensions].
        """
        if len(modality.shape) != 2:
            raise ValueError(
                f"{self.column!r} has the shape {modality.shape}; a `PointCloud` needs "
                "[points, dimensions]."
            )
        return PointCloudModality(*modality)

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the first two coordinates if the modality is a point cloud."""
        if not isinstance(modality, PointCloudModality):
            return None
        return "coordinate 1", "coordinate 2"

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the first two coordinates as places and the third, if there is one, as color."""
        limits = scale.add_margin()
        # Coordinates that a cloud lacks are drawn as 0.
        x, y, color = np.pad(x, ((0, 0), (0, max(0, 3 - x.shape[1]))))[:, :3].T
        axis.scatter(x, y, c=color, s=4, cmap="viridis", vmin=scale.low, vmax=scale.high)
        axis.set(xlim=limits, ylim=limits, aspect="equal")
        axis.locator_params(nbins=4)


def _check_points(points: np.ndarray) -> np.ndarray:
    if points.ndim != 2:
        raise ValueError(f"it has the shape {points.shape}; points need [points, dimensions].")
    return points
