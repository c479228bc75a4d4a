"""Images: pixels of PNG and JPEG files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mmjax.data.dataset import Modality
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.limits import MAX_PIXELS, LimitError, check_declared_size
from mmjax.data.load.decode import UnreadableError, check_file_exists, list_suffixes

_SUFFIXES = {".png", ".jpg", ".jpeg"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels


class Image(NamedTuple):
    """Pixels, uint8 [height width channels].

    Attributes:
      column: holds the path to a PNG or JPEG file, relative to the table's folder.
      size: (height, width) to resize to; None: all images must have one size.
      channels: 1 for gray, 3 for color, 4 with opacity; None: what the files have.
      max_pixels: the largest image that is decoded, by the size that its header declares.

    Example:
      >>> decode_image(np.zeros((8, 8, 3), np.uint8), Image("photo", size=(4, 6), channels=1)).shape
      (4, 6, 1)
    """

    column: str
    size: tuple[int, int] | None = None
    channels: Literal[1, 3, 4] | None = None
    max_pixels: int = MAX_PIXELS

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells end like an image file."""
        return list_suffixes(cells) <= _SUFFIXES

    def learn(self, values: Iterable[Any], source: Any) -> dict[str, Any]:
        """Returns nothing: images need no training split."""
        return {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Decodes the file that a cell names."""
        return decode_image(folder / str(cells[0]), self)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray:
        """Resizes and converts pixels."""
        array = np.asarray(values[0])
        if array.dtype != np.uint8 or array.ndim != 3:
            raise ValueError(
                f"it is {array.dtype}{list(array.shape)}, not an image of uint8 [h w c]."
            )
        return decode_image(array, self)

    def declare_modality(self, words: Mapping[str, int]) -> Modality:
        """Returns the modality of arrays of one shape."""
        return Modality(())

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes if the example is an image of gray or colored pixels."""
        is_image = not modality.sequence and x.ndim == 3 and x.shape[2] in _PIL_MODES
        return ("pixel", "pixel") if is_image else None

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the pixels, scaled to 0 to 1 unless they are bytes or lie there already."""
        if x.dtype == np.uint8:
            x = x / 255
        elif scale.low < 0 or scale.high > 1:
            # The guard keeps constant images from division by zero.
            x = (x - scale.low) / max(scale.high - scale.low, 1e-12)
        axis.imshow(x, cmap="gray", vmin=0, vmax=1)
        axis.locator_params(nbins=4, integer=True)


def decode_image(
    source: Path | UInt8[np.ndarray, "h w c"], spec: Image
) -> UInt8[np.ndarray, "i j o"]:
    """Decodes a PNG or JPEG file, or takes given pixels, in the size and channels asked for.

    Raises:
      UnreadableError: naming the file.
    """
    import PIL.Image

    if isinstance(source, Path):
        picture = _open_image(source, spec.max_pixels)
    elif spec.size is None and spec.channels in (None, source.shape[-1]):
        return source
    else:
        picture = PIL.Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
    if spec.channels not in (None, *_PIL_MODES):
        raise ValueError(f"an `Image` cannot have {spec.channels} channels, only 1, 3 or 4.")
    # Black and white becomes gray; palettes and other modes become color.
    mode = "L" if picture.mode == "1" else picture.mode
    mode = mode if mode in _PIL_MODES.values() else "RGB"
    picture = picture.convert(_PIL_MODES[spec.channels] if spec.channels else mode)
    if spec.size is not None:
        picture = picture.resize(spec.size[::-1], PIL.Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _open_image(path: Path, max_pixels: int) -> Any:
    """Decodes a file, if the size that its header declares is within the limit."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    check_file_exists(path)
    with path.open("rb") as file:
        is_png = file.read(len(_PNG_SIGNATURE)) == _PNG_SIGNATURE
    try:
        # `PIL.Image.open` has a limit of its own, which only a global variable can raise.
        with (PngImageFile if is_png else JpegImageFile)(path) as picture:
            pixels = picture.width * picture.height
            check_declared_size(path, pixels, max_pixels, "max_pixels", "pixels")
            picture.load()
            return picture
    except LimitError as error:
        raise UnreadableError(str(error)) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's messages for a damaged file are of all these kinds.
        raise UnreadableError(f"{path} is not a whole PNG or JPEG file: {error}.") from None
