"""What the columns of a user's table, or the features of a TFDS data set, stand for."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from mmjax.data.dataset import Task
from mmjax.data.limits import MAX_PIXELS, MAX_RECORDING_BYTES


class Numbers(NamedTuple):
    """A vector of numbers.

    Attributes:
      columns: one column a number, in this order, or a single one.
    """

    columns: str | tuple[str, ...]


class Text(NamedTuple):
    """A sequence of integer tokens; 0 is padding.

    Attributes:
      column: holds the text.
      level: "byte": UTF-8 bytes plus 1, so 257 tokens in all; "word": words and punctuation marks
        in lower case, 1 for those that are not in the vocabulary.
      vocabulary: for words, how many tokens there are at most, padding and the unknown included;
        the most frequent words of the training split are taken.
      longest: tokens after this many are cut off; None keeps all.
    """

    column: str
    level: Literal["byte", "word"] = "byte"
    vocabulary: int = 10_000
    longest: int | None = None


class Image(NamedTuple):
    """Pixels, uint8 [height width channels].

    Attributes:
      column: holds the path to a PNG or JPEG file, relative to the table's folder.
      size: (height, width) to resize to; None: all images must have one size.
      channels: 1 for grey, 3 for colour, 4 with opacity; None: what the files have.
      max_pixels: the largest image that is decoded, by the size that its header declares.
    """

    column: str
    size: tuple[int, int] | None = None
    channels: Literal[1, 3, 4] | None = None
    max_pixels: int = MAX_PIXELS


class Audio(NamedTuple):
    """Sound as a sequence of log-mel frames, see `mmjax.data.audio.log_mel.log_mel`.

    Attributes:
      column: holds the path to a WAV file, relative to the table's folder.
      sample_rate: in Hz, to which recordings of another rate are resampled; None: all must have
        one rate.
      window: length of a frame, in seconds.
      hop: time from one frame to the next, in seconds.
      mels: number of bands.
      longest: frames after this many are cut off; None keeps all.
      max_bytes: the largest file that is read, and the largest recording after resampling, as
        float32.
    """

    column: str
    sample_rate: int | None = None
    window: float = 0.025
    hop: float = 0.010
    mels: int = 40
    longest: int | None = None
    max_bytes: int = MAX_RECORDING_BYTES


class Label(NamedTuple):
    """The target of a classification.

    Attributes:
      column: holds the class, as a name or a whole number.
      classes: names of the classes; () takes those of the training split.
    """

    column: str
    classes: tuple[str, ...] = ()


class Labels(NamedTuple):
    """The target of a task with several labels at once.

    Attributes:
      columns: one a class, each cell 0 or 1.
    """

    columns: tuple[str, ...]


class Value(NamedTuple):
    """The target of a regression.

    Attributes:
      column: holds a number.
      unit: its unit.
    """

    column: str
    unit: str = ""


Input = Numbers | Text | Image | Audio
Target = Label | Labels | Value


def columns_of(specs: Iterable[str | Input | Target]) -> list[str]:
    """The names of all columns that some specifications name, or that are named alone; sorted."""
    found: set[str] = set()
    for spec in specs:
        names = spec if isinstance(spec, str) else spec[0]
        found |= {names} if isinstance(names, str) else set(names)
    return sorted(found)


def declared(spec: Target) -> Task | None:
    """The task that a target says it is; None if that is for its values to tell."""
    match spec:
        case Label(classes=()):
            return None
        case Label(classes=classes):
            return Task("classification", tuple(classes))
        case Labels(columns=columns):
            return Task("multilabel", tuple(columns))
        case Value(unit=unit):
            return Task("regression", unit=unit)
