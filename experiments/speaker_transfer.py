"""Studies whether a pretrained speaker encoder helps to tell spoken digits and their speakers.

    mmjax ablate experiments/speaker_transfer.py --workdir runs/speaker_transfer --seeds 0 1 2 3 4
    mmjax report runs/speaker_transfer

The encoder is the LSTM (three layers of 256) of Resemblyzer, which was trained to tell thousands of
speakers apart (Wan et al., ICASSP 2018, arXiv:1710.10467); it is frozen, tuned, or the same network
from scratch. There are 300 training examples. "The same" speakers have other takes in the test; the
"new" ones, two of the six, have test examples only.

Expected: the frozen encoder tells speakers, and less so the digits, which it was trained to ignore;
tuning it helps most where the speakers are new.

Measured, test accuracy (five seeds, mean and half the 95% interval of Student's t; learning rate
and epochs are those of the file for all arms, none was tuned):

    encoder               speakers    digit            speaker
    tuned                 the same    0.971 +- 0.019   0.991 +- 0.005
    scratch, logarithms   the same    0.951 +- 0.030   0.987 +- 0.003
    frozen                the same    0.835 +- 0.027   0.995 +- 0.002
    scratch               the same    0.758 +- 0.032   0.897 +- 0.013
    tuned                 new         0.754 +- 0.079
    scratch, logarithms   new         0.648 +- 0.054
    frozen                new         0.578 +- 0.059
    scratch               new         0.408 +- 0.024

With the input that the encoder expects, pretrained weights are worth 0.21 (the same speakers) and
0.35 (new ones) in the digits over the same network from scratch. Most of that is the scale of the
input: on logarithms, the network from scratch comes within 0.02 and 0.11 of the tuned one. The
frozen encoder knows the speakers best, and tuning costs it little of that. The training of the five
seeds took 2 to 4 minutes with the frozen encoder, whose outputs are computed once, and 8 to 40 with
the others, on two cores that were busy otherwise.
"""

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import optax
from jaxtyping import Float
from scipy.signal import resample_poly

from mmjax.config import auto_config
from mmjax.data.builtin.originals.fsdd import SAMPLE_RATE, Clip, read_fsdd
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.encoders import RecurrentEncoder
from mmjax.experiment import Experiment
from mmjax.fusion import Concat
from mmjax.heads import Classification
from mmjax.masks import pad_ragged
from mmjax.model import Model
from mmjax.pretrained import Weights, weights
from mmjax.pretrained.renaming import recurrent_names
from mmjax.study import Study
from mmjax.types import Batch

RECORDINGS = os.environ.get("FSDD", "recordings.zip")
WEIGHTS = Path("runs/speaker.safetensors")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = {"train": range(5, 10), "validation": range(45, 50), "test": range(5)}
RATE, SIZE, HOP, MELS, FRAMES = 16_000, 400, 160, 40, 64  # of the spectrogram


def initial_weights(start: str = "pretrained") -> dict[str, Weights]:
    """Names the weights that the encoder starts from: `WEIGHTS`, or none if from scratch.

    If there is no such file, it is made of the installed package Resemblyzer, for which PyTorch is
    needed once.
    """
    if start == "scratch":
        return {}
    if not WEIGHTS.exists():
        convert_speaker_weights(WEIGHTS)
    unused = ("linear.*", "similarity_*")
    return {"encoders_speech": weights(WEIGHTS, recurrent_names(), unused, prefix="lstm.")}


def convert_speaker_weights(path: Path) -> None:
    """Converts the pickle of the package, of which PyTorch reads arrays only."""
    package = importlib.util.find_spec("resemblyzer")
    if package is None or package.origin is None:
        raise FileNotFoundError(f"there is no {path}; install Resemblyzer, from which it is made.")
    import torch
    from safetensors.torch import save_file

    source = Path(package.origin).parent / "pretrained.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(torch.load(source, map_location="cpu", weights_only=True)["model_state"], path)


def spoken_digits(
    recordings: str = RECORDINGS, new_speakers: tuple[str, ...] = (), log: bool = False
) -> Dataset:
    """Reads the Free Spoken Digit Dataset as spectrograms of the kind that the encoder expects.

    Args:
      recordings: its archive or folder.
      new_speakers: of whom there are only test examples, and of the others none in the test.
      log: whether the spectrograms are logarithms, standardized over the training frames.
    """
    splits: dict[str, list[Clip]] = {split: [] for split in TAKES}
    for clip in read_fsdd(Path(recordings))[0]:
        for split, takes in TAKES.items():
            has_speaker = (clip.speaker in new_speakers) == (split == "test")
            if clip.take in takes and (has_speaker or not new_speakers):
                splits[split].append(clip)
    frames = {
        split: [compute_mel_power(clip.samples) for clip in clips]
        for split, clips in splits.items()
    }
    if log:
        logs = {split: [np.log(x + 1e-6) for x in rows] for split, rows in frames.items()}
        together = np.concatenate(logs["train"])
        mean, deviation = together.mean(axis=0), together.std(axis=0)
        frames = {
            split: [(x - mean[None]) / deviation[None] for x in rows]
            for split, rows in logs.items()
        }
    return Dataset(
        "spoken_digits",
        {"speech": Modality((FRAMES, MELS), sequence=True)},
        {
            "digit": Task("classification", tuple("0123456789")),
            "speaker": Task("classification", SPEAKERS),
        },
        {
            split: Arrays(make_batch(clips, frames[split], new_speakers))
            for split, clips in splits.items()
        },
    )


def make_batch(clips: list[Clip], frames: list[np.ndarray], new_speakers: tuple[str, ...]) -> Batch:
    """Makes a split of clips and their spectrograms; new speakers are unlabeled."""
    is_known = np.array([clip.speaker not in new_speakers for clip in clips])
    lengths = np.array([len(x) for x in frames], np.int32)
    everywhere = np.ones(len(clips), bool)
    return Batch(
        inputs={"speech": pad_ragged(frames, (FRAMES, MELS), np.float32)},
        present={"speech": everywhere},
        lengths={"speech": lengths},
        targets={
            "digit": np.array([clip.digit for clip in clips], np.int32),
            "speaker": np.array([SPEAKERS.index(clip.speaker) for clip in clips], np.int32),
        },
        labeled={"digit": everywhere, "speaker": is_known},
    )


def compute_mel_power(samples: Float[np.ndarray, " time"]) -> Float[np.ndarray, "frames 40"]:
    """Computes the spectrogram of Resemblyzer: power in 40 mel bands, 10 ms apart, at 16 kHz.

    Quiet recordings are amplified to an effective value of -30 dB, as there. The voice detection
    before it is left out.
    """
    wave = resample_poly(samples, RATE // SAMPLE_RATE, 1)
    wave = wave * max(1.0, 10 ** (-30 / 20) / np.sqrt(np.mean(wave**2)))
    padded = np.pad(wave, SIZE // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP][:FRAMES]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(SIZE) / SIZE)
    power = np.abs(np.fft.rfft(windows * hann[None])) ** 2
    return (power @ make_slaney_filters()).astype(np.float32)


def make_slaney_filters() -> Float[np.ndarray, "frequencies mels"]:
    """Makes the mel filters of Slaney's Auditory Toolbox (1998), triangles of area 1.

    The scale is linear up to 1000 Hz, at 200/3 Hz per mel, and logarithmic above.
    """
    step = math.log(6.4) / 27
    mel = np.linspace(0, 15 + math.log(RATE / 2 / 1000) / step, MELS + 2)
    hertz = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))
    left, peak, right = hertz[None, :-2], hertz[None, 1:-1], hertz[None, 2:]
    frequency = np.arange(SIZE // 2 + 1)[:, None] * RATE / SIZE
    rising, falling = (frequency - left) / (peak - left), (right - frequency) / (right - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)


@auto_config
def experiment() -> Experiment:
    """Builds the encoder and one linear layer per task."""
    return Experiment(
        data=spoken_digits(),
        model=Model(
            encoders={"speech": RecurrentEncoder(width=256, layers=3)},
            fusion=Concat(),
            heads={"digit": Classification(10), "speaker": Classification(6)},
        ),
        optimizer=optax.adam(1e-3),
        init=initial_weights(),
        epochs=20,
        batch_size=25,
        eval_batch_size=300,
        monitor="mean/accuracy",
    )


STUDY = Study(
    base=experiment,
    axes={
        "encoder": {
            "frozen": {"trainable": "('heads_*',)", "cache_frozen": "True"},
            "tuned": {},
            "scratch": {"init.start": "'scratch'"},
            "scratch, logarithms": {
                "init.start": "'scratch'",
                "data.log": "True",
            },
        },
        "speakers": {"the same": {}, "new": {"data.new_speakers": "('theo', 'yweweler')"}},
    },
    metric="digit/accuracy",
)
