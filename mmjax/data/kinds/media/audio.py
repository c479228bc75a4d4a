"""Audio: recordings as sequences of log-mel frames."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from mmjax.data.audio.log_mel import log_mel
from mmjax.data.audio.wav import read_wav
from mmjax.data.dataset import Modality
from mmjax.data.kinds.protocols import Learned, RowScale
from mmjax.data.limits import MAX_RECORDING_BYTES, check_declared_size
from mmjax.data.load.decode import UnreadableError, check_file_exists, list_suffixes

_INT16_SCALE = 2.0**15


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

    Example:
      >>> Audio("speech", mels=20).matches_cells(["a.wav", "b.WAV"])
      True
    """

    column: str
    sample_rate: int | None = None
    window: float = 0.025
    hop: float = 0.010
    mels: int = 40
    longest: int | None = None
    max_bytes: int = MAX_RECORDING_BYTES

    @staticmethod
    def matches_cells(cells: Sequence[Any]) -> bool:
        """Checks whether all cells end like a WAV file."""
        return list_suffixes(cells) == {".wav"}

    def learn(self, columns: Sequence[Iterable[Any]], source: Any) -> dict[str, Any]:
        """Finds the sample rate: of a feature, or of the first readable file of a folder.

        Raises:
          ValueError: if nothing tells the sample rate of a feature.
        """
        if isinstance(source, Path):
            known = self.sample_rate is not None
            return {} if known else self._learn_from_files(columns[0], source)
        rate = getattr(source, "sample_rate", None) or self.sample_rate
        if not rate:
            raise ValueError(
                f"{self.column!r} does not tell its sample rate; give it to the `Audio`."
            )
        return {"rate": rate}

    def _learn_from_files(self, files: Iterable[Any], folder: Path) -> dict[str, Any]:
        for file in files:
            try:
                return {"rate": read_recording(folder / str(file), self.max_bytes)[1]}
            except UnreadableError:
                continue
        return {}

    def read_cells(self, cells: Sequence[Any], folder: Path, learned: Learned) -> np.ndarray:
        """Reads the recording whose file name is in the cell."""
        path = folder / str(cells[0])
        samples, rate = read_recording(path, self.max_bytes)
        if learned.get("rate") not in (None, rate):
            raise ValueError(
                f"{path} has {rate} samples per second, others {learned['rate']}; give the "
                "`Audio` a sample_rate to resample them."
            )
        return _compute_frames(samples, rate, self)

    def read_feature(self, values: Sequence[Any], learned: Learned) -> np.ndarray | None:
        """Converts samples, the mean of all channels; None if there are none."""
        samples = values[0]
        if samples.size == 0:
            return None
        # Integer samples are those of 16-bit recordings.
        scaled = samples if samples.dtype.kind == "f" else samples / _INT16_SCALE
        return _compute_frames(
            scaled if scaled.ndim == 1 else scaled.mean(axis=1), learned["rate"], self
        )

    def declare_modality(self, learned: Learned) -> Modality:
        """Returns a sequence."""
        return Modality((), True)

    @staticmethod
    def name_axes(x: np.ndarray, modality: Modality) -> tuple[str, str] | None:
        """Names the axes of a spectrogram, as which any array of several axes can be drawn."""
        return ("time step", "channel") if modality.sequence else ("first axis", "other axes")

    @staticmethod
    def draw(axis: Any, x: np.ndarray, scale: RowScale) -> None:
        """Draws the first axis, such as time, to the right, and all others upwards."""
        levels = x.reshape(len(x), -1).T.astype(float)
        style = {"aspect": "auto", "origin": "lower", "cmap": "magma"}
        axis.imshow(levels, vmin=scale.low, vmax=scale.high, **style)
        axis.set_xlim(-0.5, scale.longest - 0.5)
        axis.locator_params(nbins=4, integer=True)


def read_recording(path: Path, max_bytes: int) -> tuple[Float[np.ndarray, " time"], int]:
    """Reads the samples of a WAV file, and their number per second.

    Raises:
      UnreadableError: naming the file.
    """
    check_file_exists(path)
    try:
        return read_wav(path, max_bytes=max_bytes)
    except (OSError, ValueError) as error:
        raise UnreadableError(str(error)) from None


def _compute_frames(
    samples: Num[np.ndarray, " time"], rate: int, spec: Audio
) -> Float[np.ndarray, "frames mels"]:
    """Computes log-mel frames, after resampling if another sample rate is asked for."""
    target_rate = spec.sample_rate or rate
    if target_rate != rate:
        from scipy.signal import resample_poly

        size = len(samples) * target_rate // rate * samples.itemsize
        check_declared_size(f"the recording at {target_rate} Hz", size, spec.max_bytes, "max_bytes")
        common = math.gcd(target_rate, rate)
        samples = resample_poly(samples, target_rate // common, rate // common)
    levels = log_mel(samples, target_rate, window=spec.window, hop=spec.hop, mels=spec.mels)
    return levels[: spec.longest]
