"""The kinds of a table's columns or a TFDS data set's features, one file per kind.

A new kind is a NamedTuple with the methods of `InputKind` or `TargetKind` and an entry here.
"""

from collections.abc import Iterable

from mmjax.data.kinds.boolean import Boolean
from mmjax.data.kinds.category import Category
from mmjax.data.kinds.date_time import DateTime
from mmjax.data.kinds.label import Label
from mmjax.data.kinds.label_set import LabelSet
from mmjax.data.kinds.labels import Labels
from mmjax.data.kinds.media.audio import Audio
from mmjax.data.kinds.media.depth_map import DepthMap
from mmjax.data.kinds.media.image import Image
from mmjax.data.kinds.media.image_bag import ImageBag
from mmjax.data.kinds.media.mask import Mask
from mmjax.data.kinds.media.point_cloud import PointCloud
from mmjax.data.kinds.numbers import Numbers
from mmjax.data.kinds.shares import Shares
from mmjax.data.kinds.spans import Spans
from mmjax.data.kinds.text import Text
from mmjax.data.kinds.token_labels import TokenLabels
from mmjax.data.kinds.value import Value

Input = PointCloud | ImageBag | Numbers | Boolean | DateTime | Image | Audio | Category | Text
Target = Value | Labels | LabelSet | Shares | TokenLabels | Spans | Mask | DepthMap | Label

# In the order in which a column's name alone is inferred; the last of each takes any cell.
INPUT_KINDS: tuple[type[Input], ...] = (
    *(PointCloud, ImageBag, Numbers, Boolean, DateTime, Image, Audio, Category, Text),
)
TARGET_KINDS: tuple[type[Value | Label], ...] = (Value, Label)
# In the order in which a plot is chosen; the last one draws any array. Vectors of any kind are
# drawn by `Numbers`.
PLOTTED_KINDS: tuple[type[Input], ...] = (
    *(PointCloud, ImageBag, Category, Text, Numbers, Image, Audio),
)
# The cells of these hold paths of files.
FILE_KINDS: tuple[type[Input | Target], ...] = (Image, Audio, ImageBag, Mask, DepthMap)
# Some of the cells of a row may be empty.
GAP_KINDS: tuple[type[Input | Target], ...] = (Numbers, Boolean, Category, Labels, Spans)


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
