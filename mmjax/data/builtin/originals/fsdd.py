"""The Free Spoken Digit Dataset: ten digits by six speakers, in fifty takes each.

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

SAMPLE_RATE = 8000  # samples per second
_FILE_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")


class Clip(NamedTuple):
    """A recording of one spoken digit.

    Attributes:
      digit: 0 to 9.
      speaker: the first name.
      take: number of earlier recordings of the same digit by the same speaker.
      samples: the sound, in [-1, 1], at 8 kHz.
    """

    digit: int
    speaker: str
    take: int
    samples: Float[np.ndarray, " time"]


def read_fsdd(
    path: Path, *, skip_damaged: bool = False, max_bytes: int = MAX_BYTES
) -> tuple[list[Clip], list[str]]:
    """Reads all recordings from any folders of an archive, or from a folder.

    Args:
      path: a zip archive or a folder.
      skip_damaged: whether to leave out damaged recordings instead of refusing them.
      max_bytes: maximum size of all recordings together, unpacked.

    Returns:
      (clips, messages): the clips in order of digit, speaker and take, and one message per
      recording that was left out.

    Raises:
      ValueError: naming the file, if the archive or a recording is damaged, is not at 8 kHz, or
        has another kind of name; if the recordings declare more than `max_bytes`; or if a recording
        is missing, since every speaker says every digit in the same takes.
    """
    clips: dict[tuple[int, str, int], Float[np.ndarray, " _"] | None] = {}
    damaged = []
    for file, content in _read_wav_files(path, max_bytes):
        name = f"{path}, {file}"
        key = _parse_file_name(PurePosixPath(file).name, name)
        if key in clips:
            raise ValueError(f"{name}: this recording occurs twice.")
        try:
            clips[key] = _decode_samples(content, name)
        except ValueError as error:
            if not skip_damaged:
                raise ValueError(f"{error} skip_damaged=True leaves such files out.") from None
            damaged.append(str(error))
            clips[key] = None
    _check_complete(path, set(clips))
    readable = sorted((key, samples) for key, samples in clips.items() if samples is not None)
    return [Clip(*key, samples) for key, samples in readable], damaged


def _read_wav_files(path: Path, max_bytes: int) -> Iterator[tuple[str, bytes | Exception]]:
    """Yields the WAV files in order of their names, with their content or its error."""
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
        members = [info for info in archive.infolist() if info.filename.endswith(".wav")]
        members.sort(key=lambda info: info.filename)
        # The size that the directory declares is safe: reading a member stops there.
        total = sum(info.file_size for info in members)
        check_declared_size(path, total, max_bytes, "max_bytes")
        for info in members:
            try:
                yield info.filename, archive.read(info)
            # Encrypted members raise RuntimeError, unknown compression NotImplementedError.
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                yield info.filename, error


def _parse_file_name(file: str, name: str) -> tuple[int, str, int]:
    """Parses a file's name to (digit, speaker, take)."""
    match = _FILE_NAME.fullmatch(file)
    if not match:
        raise ValueError(f"{name}: the name must be DIGIT_SPEAKER_TAKE.wav, as 7_theo_12.wav.")
    return int(match["digit"]), match["speaker"], int(match["take"])


def _decode_samples(content: bytes | Exception, name: str) -> Float[np.ndarray, " time"]:
    if isinstance(content, Exception):
        raise ValueError(f"{name} is damaged in the archive: {content}.")
    samples, rate = read_wav(content, name=name)
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"{name} has {rate} samples per second; all recordings must have {SAMPLE_RATE}."
        )
    if not samples.any():
        raise ValueError(f"{name} is silent.")
    return samples


def _check_complete(path: Path, keys: set[tuple[int, str, int]]) -> None:
    """Refuses recordings that are not all of every digit, speaker and take."""
    if not keys:
        raise ValueError(f"{path} has no WAV files.")
    _, speakers, takes = (set(values) for values in zip(*keys, strict=True))
    missing = set(itertools.product(range(10), speakers, takes)) - keys
    if missing:
        digit, speaker, take = min(missing)
        raise ValueError(
            f"{path} lacks {len(missing)} recordings, the first of them "
            f"{digit}_{speaker}_{take}.wav; every speaker says every digit in the same takes."
        )
