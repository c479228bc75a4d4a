"""The kinds of a table's columns or a TFDS data set's features, one file per kind.

A new kind is a NamedTuple with the methods of `InputKind` or `TargetKind` and an entry here.
"""

from collections.abc import Iterable

from mmjax.data.kinds.audio import Audio
from mmjax.data.kinds.image import Image
from mmjax.data.kinds.label import Label
from mmjax.data.kinds.labels import Labels
from mmjax.data.kinds.numbers import Numbers
from mmjax.data.kinds.point_cloud import PointCloud
from mmjax.data.kinds.text import Text
from mmjax.data.kinds.value import Value

Input = PointCloud | Numbers | Image | Audio | Text
Target = Value | Labels | Label

# In the order in which a column's name alone is inferred; the last of each takes any cell.
INPUT_KINDS: tuple[type[Input], ...] = (PointCloud, Numbers, Image, Audio, Text)
TARGET_KINDS: tuple[type[Value | Label], ...] = (Value, Label)
# In the order in which a plot is chosen; the last one draws any array.
PLOTTED_KINDS: tuple[type[Input], ...] = (PointCloud, Text, Numbers, Image, Audio)
# The cells of these hold paths of files.
FILE_KINDS: tuple[type[Input], ...] = (Image, Audio)


def list_columns(specs: Iterable[str | Input | Target]) -> list[str]:
    """Lists all columns that the kinds name, or that are named alone; sorted.

    Example:
      >>> list_columns([Numbers(("b", "a")), "c", Label("a")])
      ['a', 'b', 'c']
    """
    columns: set[str] = set()
    for spec in specs:
        columns.update(get_columns(spec))
    return sorted(columns)


def get_columns(spec: str | Input | Target) -> tuple[str, ...]:
    """Returns the columns that a kind, or a column's name alone, reads."""
    names = spec if isinstance(spec, str) else spec[0]
    return (names,) if isinstance(names, str) else tuple(names)
