"""WAV files, read into samples in [-1, 1]."""

import io
import os
import struct
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num

from mmjax.data.limits import (
    MAX_CHANNELS,
    MAX_RECORDING_BYTES,
    MAX_SAMPLE_RATE,
    check_declared_size,
)


def read_wav(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    max_bytes: int = MAX_RECORDING_BYTES,
) -> tuple[Float[np.ndarray, " time"], int]:
    """Reads a WAV file: PCM of 8 to 32 bits, or floating point.

    Channels are averaged. Integers are divided by the largest magnitude of their type;
    floating-point samples stay as they are.

    Args:
      source: a path, or the file's content.
      name: name of the file in errors; None is its path.
      max_bytes: maximum size of the file.

    Returns:
      (samples, rate): float32, and samples per second.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, if it is larger than `max_bytes`, damaged, truncated, of another
        format or without samples, has an implausible rate or number of channels, or if a sample is
        not finite.

    Example:
      >>> from scipy.io import wavfile
      >>> wavfile.write(buffer := io.BytesIO(), 8000, np.array([0, 16384], np.int16))
      >>> read_wav(buffer.getvalue())
      (array([0. , 0.5], dtype=float32), 8000)
    """
    name = name or ("The WAV file" if isinstance(source, bytes) else str(source))
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"File {name} does not exist.")
    size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
    check_declared_size(name, size, max_bytes, "max_bytes")
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    samples, rate = _decode_wav(content, name)
    if samples.size == 0:
        raise ValueError(f"{name} has no samples.")
    scaled = _scale_to_unit_range(samples)
    if not np.isfinite(scaled).all():
        row = int(np.flatnonzero(~np.isfinite(scaled).reshape(len(scaled), -1).all(axis=1))[0])
        raise ValueError(f"{name} has a sample that is not finite, at {row}.")
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=1)
    return mono.astype(np.float32), rate


def _decode_wav(content: bytes, name: str) -> tuple[Num[np.ndarray, "time *channels"], int]:
    """Decodes a WAV file to its samples, as they are stored, and its rate."""
    from scipy.io import wavfile

    if not content:
        raise ValueError(f"{name} is empty.")
    _check_chunks(content, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # about chunks without sound
        warnings.filterwarnings("error", "Reached EOF prematurely")
        try:
            rate, samples = wavfile.read(io.BytesIO(content))
        except Exception as error:  # SciPy raises many kinds on damaged headers
            reason = str(error).rstrip(".")
            raise ValueError(f"{name} is not a whole WAV file: {reason}.") from None
    if not 1 <= rate <= MAX_SAMPLE_RATE:
        raise ValueError(
            f"{name} has a sample rate of {rate} Hz; it must be 1 to {MAX_SAMPLE_RATE}."
        )
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    if channels > MAX_CHANNELS:
        raise ValueError(f"{name} has {channels} channels; it may have at most {MAX_CHANNELS}.")
    return samples, int(rate)


def _check_chunks(content: bytes, name: str) -> None:
    """Refuses a file that ends inside a chunk; SciPy would return the incomplete chunk."""
    order = {b"RIFF": "<", b"RIFX": ">"}.get(content[:4])
    start = 12
    while order and start + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}4sI", content, start)
        start += 8 + size
        if kind == b"data" and start > len(content):
            raise ValueError(
                f"{name} is not a whole WAV file: it declares {size} bytes of sound, but has "
                f"{size - (start - len(content))}."
            )
        # Chunks are padded to an even number of bytes.
        start += size % 2


def _scale_to_unit_range(
    samples: Num[np.ndarray, "time *channels"],
) -> Float[np.ndarray, "time *channels"]:
    """Scales integer samples to [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float64)
    bits = 8 * samples.dtype.itemsize
    # 8-bit samples are unsigned around 128; wider ones are signed around 0.
    middle = 2.0 ** (bits - 1) if samples.dtype.kind == "u" else 0.0
    return (samples - middle) / 2.0 ** (bits - 1)
