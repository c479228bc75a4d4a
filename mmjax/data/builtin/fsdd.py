"""The Free Spoken Digit Dataset: ten digits, six speakers, fifty takes of each.

Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.
"""

import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.audio.wav import read_wav
from mmjax.data.limits import MAX_BYTES, check_declared_size

RATE = 8000  # samples a second
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")


class Clip(NamedTuple):
    """A recording of one spoken digit.

    Attributes:
      digit: 0 to 9.
      speaker: the first name.
      take: how often the speaker had said the digit before.
      samples: the sound, in [-1, 1], at 8 kHz.
    """

    digit: int
    speaker: str
    take: int
    samples: Float[np.ndarray, " time"]


def read_fsdd(
    path: Path, *, skip_damaged: bool = False, max_bytes: int = MAX_BYTES
) -> tuple[list[Clip], list[str]]:
    """Reads all recordings from an archive, whatever folder they lie in there, or from a folder.

    Args:
      path: a zip archive or a folder.
      skip_damaged: whether to leave damaged recordings out instead of refusing them.
      max_bytes: the largest size of all recordings together, unpacked.

    Returns:
      The clips, in order of digit, speaker and take, and what is wrong with those left out.

    Raises:
      ValueError: naming the file, if the archive or a recording is damaged, is not at 8 kHz, or
        has another kind of name; if the recordings declare more than `max_bytes`; or if a recording
        is missing that must be there, since every speaker says every digit in the same takes.
    """
    clips: dict[tuple[int, str, int], Float[np.ndarray, " _"] | None] = {}
    damaged = []
    for file, content in _files(path, max_bytes):
        name = f"{path}, {file}"
        key = _parsed(PurePosixPath(file).name, name)
        if key in clips:
            raise ValueError(f"{name}: this recording is there twice.")
        try:
            clips[key] = _samples(content, name)
        except ValueError as error:
            if not skip_damaged:
                raise ValueError(f"{error} skip_damaged=True leaves such files out.") from None
            damaged.append(str(error))
            clips[key] = None
    _check_complete(path, set(clips))
    return [
        Clip(*key, x) for key, x in sorted(clips.items(), key=lambda item: item[0]) if x is not None
    ], damaged


def _files(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes | Exception]]:
    """The WAV files, by name, with their content or what is wrong with it."""
    if path.is_dir():
        files = sorted(path.glob("*.wav"))
        total = sum(file.stat().st_size for file in files)
        check_declared_size(path, total, max_bytes, "max_bytes")
        for file in files:
            yield file.name, file.read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} is not a whole zip archive: {error}.") from None
    with archive:
        members = sorted(
            (info for info in archive.infolist() if info.filename.endswith(".wav")),
            key=lambda info: info.filename,
        )
        # Reading a member stops at the size that the directory declares for it.
        total = sum(info.file_size for info in members)
        check_declared_size(path, total, max_bytes, "max_bytes")
        for info in members:
            try:
                yield info.filename, archive.read(info)
            # Encrypted members raise RuntimeError, unknown compression NotImplementedError.
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                yield info.filename, error


def _parsed(file: str, name: str) -> tuple[int, str, int]:
    match = _NAME.fullmatch(file)
    if not match:
        raise ValueError(f"{name}: a recording is called DIGIT_SPEAKER_TAKE.wav, as 7_theo_12.wav.")
    return int(match["digit"]), match["speaker"], int(match["take"])


def _samples(content: bytes | Exception, name: str) -> Float[np.ndarray, " time"]:
    if isinstance(content, Exception):
        raise ValueError(f"{name} is damaged in the archive: {content}.")
    samples, rate = read_wav(content, name=name)
    if rate != RATE:
        raise ValueError(f"{name} has {rate} samples a second; all recordings must have {RATE}.")
    if not samples.any():
        raise ValueError(f"{name} is silent.")
    return samples


def _check_complete(path: Path, keys: set[tuple[int, str, int]]) -> None:
    if not keys:
        raise ValueError(f"{path} holds no WAV files.")
    speakers, takes = ({key[place] for key in keys} for place in (1, 2))
    missing = set(itertools.product(range(10), speakers, takes)) - keys
    if missing:
        digit, speaker, take = min(missing)
        raise ValueError(
            f"{path} lacks {len(missing)} recordings, the first of them "
            f"{digit}_{speaker}_{take}.wav; every speaker says every digit in the same takes."
        )
