"""Raw values, or the files that hold them, become arrays of one example."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

from mmjax.data.audio.log_mel import log_mel
from mmjax.data.audio.wav import read_wav
from mmjax.data.limits import LimitError, check_declared_size
from mmjax.data.load.column_kinds import Audio, Image, Text

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
WORD = re.compile(r"\w+|[^\w\s]")
UNKNOWN = 1  # 0 is padding
KEPT = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int32))
PNG = b"\x89PNG\r\n\x1a\n"
BYTES = ("padding", *(f"{byte:#04x}" for byte in range(256)))


class UnreadableError(ValueError):
    """A file or a value that is missing, damaged, or of another format."""


def image(source: Path | UInt8[np.ndarray, "h w c"], spec: Image) -> UInt8[np.ndarray, "i j o"]:
    """The pixels of a PNG or JPEG file, or given ones, of the size and channels asked for.

    Raises:
      UnreadableError: naming the file.
    """
    import PIL.Image

    if isinstance(source, Path):
        picture = _opened(source, spec.max_pixels)
    elif spec.size is None and spec.channels in (None, source.shape[-1]):
        return source
    else:
        picture = PIL.Image.fromarray(source[..., 0] if source.shape[-1] == 1 else source)
    known = (
        picture.mode if picture.mode in MODES.values() else "L" if picture.mode == "1" else "RGB"
    )
    if spec.channels not in (None, *MODES):
        raise ValueError(f"an `Image` cannot have {spec.channels} channels, only 1, 3 or 4.")
    picture = picture.convert(MODES[spec.channels] if spec.channels else known)
    if spec.size is not None:
        picture = picture.resize(spec.size[::-1], PIL.Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _opened(path: Path, max_pixels: int) -> Any:
    """Decodes a file, if the size that its header declares is within the limit."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    _exists(path)
    with path.open("rb") as file:
        is_png = file.read(len(PNG)) == PNG
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


def recording(path: Path, max_bytes: int) -> tuple[Float[np.ndarray, " time"], int]:
    """The samples of a WAV file, and how many there are a second.

    Raises:
      UnreadableError: naming the file.
    """
    _exists(path)
    try:
        return read_wav(path, max_bytes=max_bytes)
    except (OSError, ValueError) as error:
        raise UnreadableError(str(error)) from None


def frames(
    samples: Num[np.ndarray, " time"], rate: int, spec: Audio
) -> Float[np.ndarray, "frames mels"]:
    """Log-mel frames, after a resampling if the wanted sample rate is another."""
    wanted = spec.sample_rate or rate
    if wanted != rate:
        from scipy.signal import resample_poly

        size = len(samples) * wanted // rate * samples.itemsize
        check_declared_size(f"the recording at {wanted} Hz", size, spec.max_bytes, "max_bytes")
        common = math.gcd(wanted, rate)
        samples = resample_poly(samples, wanted // common, rate // common)
    levels = log_mel(samples, wanted, window=spec.window, hop=spec.hop, mels=spec.mels)
    return levels[: spec.longest]


def tokens(text: str | bytes, spec: Text, words: Mapping[str, int]) -> Int[np.ndarray, " n"] | None:
    """A text's tokens; None if there are none.

    Args:
      text: the text, as UTF-8 if it is bytes.
      spec: how to take it apart.
      words: the tokens of the known words; not needed for bytes.

    Raises:
      UnreadableError: naming the offset of what is not UTF-8.
    """
    text = unicode(text)
    if spec.level not in ("byte", "word"):
        raise ValueError(f"a `Text` has no level {spec.level!r}, only 'byte' and 'word'.")
    if spec.level == "byte":
        found = np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1
    else:
        found = np.array([words.get(word, UNKNOWN) for word in split_words(text)], np.int32)
    return found[: spec.longest] if found.size else None


def vocabulary(texts: Iterable[str | bytes], size: int) -> dict[str, int]:
    """Tokens for the most frequent words, from 2; of two equally frequent the first by name."""
    counts = Counter(word for text in texts for word in split_words(unicode(text)))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: token for token, word in enumerate(ranked[: max(0, size - 2)], start=2)}


def token_names(spec: Any, words: Mapping[str, int]) -> tuple[str, ...]:
    """What each token of a text stands for, from 0 on; () for what is no text."""
    if not isinstance(spec, Text):
        return ()
    return BYTES if spec.level == "byte" else ("padding", "unknown", *words)


def typed(array: np.ndarray, what: str) -> np.ndarray:
    """Numbers as they are kept: pixels (uint8) stay, other whole ones become int32, others float32.

    Raises:
      ValueError: if a number is beyond 32 bits; the message begins with `what`.
    """
    if array.dtype in KEPT:
        return array
    floating = array.dtype.kind == "f"
    kind = np.float32 if floating else np.int32
    with np.errstate(over="ignore"):
        kept = array.astype(kind, copy=False)
    if array.dtype.itemsize >= 4:
        lost = np.isinf(kept) & np.isfinite(array) if floating else kept != array
        if lost.any():
            sort = "numbers" if floating else "whole numbers"
            raise ValueError(
                f"{what} has {sort} beyond 32 bits, such as {array[lost][0]}; rescale or renumber "
                "them."
            )
    return kept


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return WORD.findall(text.lower())


def unicode(text: str | bytes) -> str:
    """The text itself.

    Raises:
      UnreadableError: naming the offset of what is not UTF-8.
    """
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(
            f"the text is not UTF-8: byte {text[error.start]:#04x} at offset {error.start}."
        ) from None


def _exists(path: Path) -> None:
    if not path.is_file():
        raise UnreadableError(f"there is no file {path}.")
