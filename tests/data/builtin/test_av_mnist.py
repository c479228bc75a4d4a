import gzip
import hashlib
import io
import struct
import zipfile

import numpy as np
import pytest
from scipy.io import wavfile

from mmjax.data.audio.spectrogram import Spectrogram
from mmjax.data.builtin.av_mnist import av_mnist
from mmjax.data.builtin.av_mnist_config import SPEAKERS, Noise
from mmjax.data.checks.validate import validate_split

SMALL = {"train": 120, "validation": 30, "test": 40}
FEW = {"train": 40, "validation": 1, "test": 1}
CLEAN = Noise(snr=float("inf"))
WHOLE = {"noise": CLEAN, "energy_removed": 0.0}
TONES = 400 + 220 * np.arange(10)  # Hz, one a digit
MARKS = {"test": 3000, "validation": 3350, "train": 3700}  # Hz, by the take
RATE = 8000
FRAMES = (800 + 400 * np.arange(6) + 128) / 64  # that sound, one number a speaker


def idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def pictures(examples, seed):
    """Images of a few strong directions of variation, and their labels."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(9).normal(size=(12, 28 * 28))
    weights = rng.normal(size=(examples, 12)) * np.geomspace(12, 2, 12)
    images = np.clip(np.round(weights @ directions + 120), 0, 255).astype(np.uint8)
    return images.reshape(-1, 28, 28), rng.permutation(np.arange(examples) % 10).astype(np.uint8)


def sound(digit, speaker, take):
    """A tone tells the digit, another the split of the take, and the duration the speaker."""
    time = np.arange(800 + 400 * SPEAKERS.index(speaker)) / RATE
    mark = MARKS["test" if take < 5 else "validation" if take < 10 else "train"]
    tones = np.sin(2 * np.pi * TONES[digit] * time) + np.sin(2 * np.pi * mark * time)
    content = io.BytesIO()
    wavfile.write(content, RATE, np.round(8000 * tones).astype(np.int16))
    return content.getvalue()


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name, size in (("train", 160), ("t10k", 50)):
        images, labels = pictures(size, size)
        idx(folder / "mnist" / f"{name}-images-idx3-ubyte.gz", images)
        idx(folder / "mnist" / f"{name}-labels-idx1-ubyte.gz", labels)
    keys = [(d, s, t) for d in range(10) for s in SPEAKERS for t in range(12)]
    (folder / "fsdd").mkdir()
    with zipfile.ZipFile(folder / "fsdd" / "recordings.zip", "w") as archive:
        for d, s, t in keys:
            archive.writestr(f"recordings/{d}_{s}_{t}.wav", sound(d, s, t))
    return folder


@pytest.fixture(scope="module")
def made(originals, tmp_path_factory):
    """Makes the data set with the given options."""
    folder = tmp_path_factory.mktemp("data")

    def make(**options):
        options = {**SMALL, "data_dir": folder, "manual_dir": originals} | options
        return av_mnist(**options)

    return make


def batches(data):
    return {split: source.batch for split, source in data.splits.items()}


def heard(audio):
    """(frequency of the loudest band below 2.7 kHz, above it, loud frames) of clean sounds."""
    mel = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 114)[1:-1]
    hertz = 700 * (10 ** (mel / 2595) - 1)
    levels = audio[..., 0].astype(np.float64)
    loudest = levels.max(axis=1)
    low, high = np.where(hertz < 2700, loudest, -1), np.where(hertz > 2700, loudest, -1)
    return hertz[low.argmax(axis=1)], hertz[high.argmax(axis=1)], (levels.max(2) > 110).sum(1)


def nearest(values, known):
    return np.abs(values[:, None] - np.asarray(known)[None]).argmin(axis=1)


@pytest.mark.slow
def test_it_keeps_what_it_promises(made):
    data = made()
    for split, batch in batches(data).items():
        assert len(data.splits[split]) == SMALL[split]
        validate_split(data.name, split, batch, data.modalities, data.tasks)
        assert batch.inputs["image"].dtype == batch.inputs["audio"].dtype == np.uint8
        assert batch.inputs["audio"].shape[1:] == (112, 112, 1)
        assert all(v.all() for v in (*batch.present.values(), *batch.labeled.values()))


def test_words_say_the_digit_by_the_speaker_and_no_take_is_in_two_splits(made):
    for split, batch in batches(made(**WHOLE)).items():
        tone, mark, frames = heard(batch.inputs["audio"])
        np.testing.assert_array_equal(nearest(tone, TONES), batch.targets["digit"])
        assert (nearest(mark, list(MARKS.values())) == list(MARKS).index(split)).all()
        np.testing.assert_array_equal(nearest(frames, FRAMES), batch.targets["speaker"])
        assert len(set(batch.targets["speaker"].tolist())) == 6


def test_pictures_come_from_the_right_file_with_their_labels_and_in_one_split_only(made):
    train, test = pictures(160, 160), pictures(50, 50)
    rows = {}
    for split, batch in batches(made(**WHOLE)).items():
        images, labels = test if split == "test" else train
        distance = np.abs(batch.inputs["image"][:, None, ..., 0].astype(int) - images[None]).max(
            axis=(2, 3)
        )
        assert (distance.min(axis=1) == 0).all()
        rows[split] = distance.argmin(axis=1)
        np.testing.assert_array_equal(labels[rows[split]], batch.targets["digit"])
        assert len(set(rows[split].tolist())) == SMALL[split]
    assert not set(rows["train"].tolist()) & set(rows["validation"].tolist())
    np.testing.assert_array_equal(rows["test"], np.arange(40))


def test_the_energy_is_removed_by_components_of_the_training_images_alone(made):
    whole, left = (batches(made(**WHOLE | {"energy_removed": x})) for x in (0.0, 0.75))
    flat = {s: b.inputs["image"].reshape(-1, 784).astype(np.float64) for s, b in whole.items()}

    def expected(fitted_on, split):
        mean = fitted_on.mean(axis=0)[None]
        _, values, rows = np.linalg.svd(fitted_on - mean, full_matrices=False)
        kept = 1 + int((np.cumsum(values**2) / (values**2).sum() < 0.25).sum())
        projected = (flat[split] - mean) @ rows[:kept].T @ rows[:kept] + mean
        return np.clip(projected, 0, 255)

    for split, batch in left.items():
        found = batch.inputs["image"].reshape(-1, 784)
        assert np.abs(found - expected(flat["train"], split)).max() <= 0.5 + 1e-6
    everything = np.concatenate([flat["train"], flat["validation"]])
    assert np.abs(found - expected(everything, "test")).max() > 1


def test_noise_is_louder_by_as_many_decibels_as_asked(made):
    spectrogram, quiet = Spectrogram(), {}
    for snr in (0.0, -10.0):
        batch = batches(made(noise=Noise(snr=snr), **FEW))["train"]
        # High bands are wide, so that their levels vary little; no mark lies in them.
        quiet[snr] = np.median(batch.inputs["audio"][:, :, -2:]) / 255
    decibels = (quiet[-10.0] - quiet[0.0]) * (spectrogram.highest - spectrogram.lowest)
    assert abs(decibels - 10) < 0.4


def test_no_two_examples_have_the_same_noise(made):
    audio = batches(made(noise=Noise(snr=0.0), **FEW))["train"].inputs["audio"]
    assert len({sound.tobytes() for sound in audio}) == len(audio)


def test_speakers_can_be_kept_apart(made):
    data = made(split_by="speaker", noise=CLEAN)
    assert set(data.tasks) == {"digit"}
    speakers = {}
    for split, batch in batches(data).items():
        tone, _, frames = heard(batch.inputs["audio"])
        np.testing.assert_array_equal(nearest(tone, TONES), batch.targets["digit"])
        found = nearest(frames, FRAMES)
        speakers[split] = set(found.tolist())
    assert [len(speakers[s]) for s in SMALL] == [4, 1, 1]
    assert len(set.union(*speakers.values())) == 6


@pytest.mark.slow
def test_the_same_arguments_give_the_same_bytes(made, originals, tmp_path):
    def records(folder):
        paths = sorted(folder.rglob("*.array_record*"))
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]

    for folder in ("a", "b"):
        made(noise=Noise("babble", -3.0), data_dir=tmp_path / folder)
    made(noise=Noise("babble", -3.0), seed=1, data_dir=tmp_path / "c")
    a, b, c = (records(tmp_path / folder) for folder in "abc")
    assert len(a) == 3 and a == b and not set(a) & set(c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"test": 0}, "test is 0; a split needs at least 1 example"),
        ({"train": 150}, r"train \+ validation is 180; MNIST's training file has 160 images"),
        ({"test": 51}, "test is 51; MNIST's test file has 50 images"),
        ({"energy_removed": 1.0}, r"energy_removed is 1\.0; it must be at least 0 and less than"),
        ({"noise": Noise(snr=float("nan"))}, r"noise\.snr is nan"),
        ({"spectrogram": Spectrogram(frames=0)}, r"spectrogram\.frames is 0"),
        ({"spectrogram": Spectrogram(high=5000.0)}, "do not fit into 0 to 4000"),
        ({"spectrogram": Spectrogram(lowest=0.0)}, r"lowest is 0\.0 and highest -5\.0"),
    ],
)
def test_bad_arguments_are_refused(made, options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def copied(originals, folder):
    for path in originals.rglob("*.*"):
        target = folder / path.relative_to(originals)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def test_bad_originals_are_refused_by_name(made, originals, tmp_path):
    folder = copied(originals, tmp_path / "originals")

    def refused(message, kind=ValueError):
        with pytest.raises(kind, match=message):
            made(manual_dir=folder, data_dir=tmp_path / "data")

    labels = folder / "mnist" / "train-labels-idx1-ubyte.gz"
    idx(labels, np.zeros(159))
    refused(r"train-images.* has 160 images and .*train-labels.* 159 labels")
    idx(labels, np.arange(160) % 12)
    refused(r"train-labels.*: label 10 is 10; it must be 0 to 9")
    labels.write_bytes(labels.read_bytes()[:40])
    refused(r"train-labels.*damaged")
    labels.unlink()
    refused(r"no mnist/train-labels-idx1-ubyte\.gz in .*--manual-dir", FileNotFoundError)
    assert not list((tmp_path / "data").rglob("*record*"))


@pytest.mark.slow
def test_damaged_recordings_are_skipped_only_if_so_wished_and_then_counted(
    made, originals, tmp_path, capfd
):
    folder = copied(originals, tmp_path / "originals")
    path = folder / "fsdd" / "recordings.zip"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["recordings/4_lucas_11.wav"] = files["recordings/4_lucas_11.wav"][:500]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    options = {"manual_dir": folder, "data_dir": tmp_path / "data"}
    with pytest.raises(ValueError, match=r"4_lucas_11\.wav is not a whole WAV file"):
        made(**options)
    capfd.readouterr()
    made(**options, skip_damaged=True)
    error = capfd.readouterr().err
    assert "1 damaged recordings left out" in error and "4_lucas_11.wav" in error
