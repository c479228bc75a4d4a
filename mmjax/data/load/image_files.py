"""Reads image files with Pillow: formats, orientation, channels, bits, sizes."""

import io
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt

from mmjax.data.limits import LimitError, check_declared_size
from mmjax.data.load.decode import UnreadableError, check_file_exists

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's mode by the number of channels
IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".j2k")
)
# The first bytes of a file, and the class of Pillow that reads it. `PIL.Image.open` has a limit of
# its own, which only a global variable can raise.
_READERS = (
    (b"\x89PNG\r\n\x1a\n", "PngImagePlugin", "PngImageFile"),
    (b"\xff\xd8\xff", "JpegImagePlugin", "JpegImageFile"),
    (b"II*\0", "TiffImagePlugin", "TiffImageFile"),
    (b"MM\0*", "TiffImagePlugin", "TiffImageFile"),
    (b"RIFF", "WebPImagePlugin", "WebPImageFile"),
    (b"BM", "BmpImagePlugin", "BmpImageFile"),
    (b"GIF8", "GifImagePlugin", "GifImageFile"),
    (b"\0\0\0\x0cjP  ", "Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    (b"\xff\x4f\xff\x51", "Jpeg2KImagePlugin", "Jpeg2KImageFile"),
)
_SIGNATURE_BYTES = 16


class OpenedImage(NamedTuple):
    """A Pillow image, its bits per channel, and the format of its file."""

    picture: Any
    bits: Literal[8, 16]
    format: str


def open_image(
    path: Path, max_pixels: int, *, load: bool = True, reduce: bool = False
) -> OpenedImage:
    """Opens an image if the size that its header declares is within the limit, and turns it.

    Args:
      path: the file; its first bytes tell the format.
      max_pixels: the largest number of pixels.
      load: whether the pixels are decoded; otherwise the header alone is read.
      reduce: whether colors of 16 bits, of which Pillow keeps 8, are accepted.

    Raises:
      UnreadableError: naming the file, if it is missing, damaged, of another format, or has more
        than 16 bits.
    """
    check_file_exists(path)
    try:
        with path.open("rb") as file:
            start = file.read(_SIGNATURE_BYTES)
        with _find_reader(start, path)(path) as picture:
            pixels = picture.width * picture.height
            check_declared_size(path, pixels, max_pixels, "max_pixels", "pixels")
            bits, name = _count_bits(picture, path, reduce), str(picture.format)
            if load:
                picture = _turn_upright(picture)
            return OpenedImage(picture, bits, name)
    except UnreadableError:
        raise
    except LimitError as error:
        raise UnreadableError(str(error)) from None
    except Exception as error:  # Pillow's readers raise almost any kind for a damaged file
        raise UnreadableError(f"{path} is not a whole image file: {error}.") from None


def check_encoded_image(data: bytes, name: str, max_pixels: int) -> None:
    """Refuses the bytes of an image file if their header declares more pixels than the limit.

    Raises:
      LimitError: naming the image, both sizes and the option.
      UnreadableError: naming the image, if the header is damaged or of another format.
    """
    try:
        with _find_reader(data[:_SIGNATURE_BYTES], name)(io.BytesIO(data)) as picture:
            pixels = picture.width * picture.height
    except UnreadableError:
        raise
    except Exception as error:  # see `open_image`
        raise UnreadableError(f"{name} is not a whole image file: {error}.") from None
    check_declared_size(name, pixels, max_pixels, "max_pixels", "pixels")


def _find_reader(start: bytes, name: object) -> Any:
    """Finds the class of Pillow that reads a file, by the file's first bytes."""
    import importlib

    for signature, module, reader in _READERS:
        if start.startswith(signature):
            return getattr(importlib.import_module(f"PIL.{module}"), reader)
    raise UnreadableError(
        f"{name} is not an image file: it is neither PNG, JPEG, TIFF, WebP, BMP, GIF nor JPEG 2000."
    )


def _turn_upright(picture: Any) -> Any:
    """Decodes the pixels and applies the orientation of the EXIF data."""
    import PIL.ImageOps

    # Pillow maps an uncompressed TIFF of one channel into memory as if it were turned already.
    picture.filename = ""
    picture.load()
    return PIL.ImageOps.exif_transpose(picture)


def _count_bits(picture: Any, path: Path, reduce: bool) -> Literal[8, 16]:
    """Returns the bits per channel."""
    tiles = [tile.args for tile in picture.tile]
    stored = [args if isinstance(args, str) else str(args[0]) for args in tiles]
    if picture.mode == "F" or any(";32" in mode for mode in stored):
        raise UnreadableError(
            f"{path} has 32 bits per channel; store it with 8 or 16, or give arrays to from_arrays."
        )
    if picture.mode.startswith("I"):
        return 16
    is_deep = any(";16" in mode for mode in stored) or _count_jpeg2000_bits(path) > 8
    if is_deep and not reduce:
        raise UnreadableError(
            f"{path} has several channels of 16 bits, of which Pillow keeps 8; give bits=8 to "
            "accept that, or store each channel as a gray image."
        )
    return 8


def _count_jpeg2000_bits(path: Path) -> int:
    """Returns the bits of a JPEG 2000 file's first channel, which Pillow does not report; or 0.

    They stand in the SIZ marker of the codestream (ISO/IEC 15444-1, A.5.1).
    """
    with path.open("rb") as file:
        start = file.read(1 << 16)
    marker = start.find(b"\xff\x4f\xff\x51")
    is_jpeg2000 = start.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"))
    depth = start[marker + 42 : marker + 43] if is_jpeg2000 and marker >= 0 else b""
    return (depth[0] & 0x7F) + 1 if depth else 0


def convert_picture(picture: Any, channels: Literal[1, 3, 4] | None) -> Any:
    """Converts a picture to gray, color, or color with opacity; None: the closest one.

    Gray of 16 bits stays as it is. Without a channel of opacity, it is laid over white.
    """
    import PIL.Image

    if picture.mode.startswith("I"):
        return picture
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if channels in (None, 4):
            return picture
        white = PIL.Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = PIL.Image.alpha_composite(white, picture).convert("RGB")
    mode = "L" if picture.mode == "1" else picture.mode
    mode = mode if mode in CHANNELS.values() else "RGB"
    return picture.convert(CHANNELS[channels] if channels else mode)


def resize_picture(
    picture: Any, size: tuple[int, int], fit: Literal["resize", "crop", "pad"]
) -> Any:
    """Brings a picture to (height, width), see `mmjax.data.Image`."""
    import PIL.Image
    import PIL.ImageOps

    method, target = PIL.Image.Resampling.BILINEAR, size[::-1]
    if fit == "crop":
        return PIL.ImageOps.fit(picture, target, method)
    if fit == "pad":
        return PIL.ImageOps.pad(picture, target, method)
    return picture.resize(target, method)


def picture_to_pixels(
    picture: Any, channels: Literal[1, 3, 4] | None = None
) -> UInt[np.ndarray, "h w c"]:
    """Returns the pixels, uint8 or uint16; gray of 16 bits is repeated for color."""
    pixels = np.asarray(picture)
    if picture.mode.startswith("I"):
        pixels = pixels.astype(np.uint16)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if channels in (None, pixels.shape[2]):
        return pixels
    pixels = np.repeat(pixels, 3, axis=2)
    opaque = np.full_like(pixels[:, :, :1], np.iinfo(pixels.dtype).max)
    return np.concatenate([pixels, opaque], axis=2) if channels == 4 else pixels


def pixels_to_picture(pixels: UInt[np.ndarray, "h w c"]) -> Any:
    """Returns a picture of given pixels.

    Raises:
      ValueError: if they are colors of 16 bits, which Pillow does not have.
    """
    import PIL.Image

    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        raise ValueError("it has several channels of 16 bits, which cannot be resized.")
    return PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
