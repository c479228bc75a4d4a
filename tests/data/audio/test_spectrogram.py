import numpy as np
import pytest
import scipy.signal

from mmjax.data.audio.spectrogram import Spectrogram

RATE = 8000


def slow(samples, s):
    """The same by SciPy's transform and one triangle after the other."""
    size, step = round(s.window * RATE), round(s.hop * RATE)
    frequencies, _, transform = scipy.signal.stft(
        samples, RATE, window=scipy.signal.get_window("hann", size), nperseg=size,
        noverlap=size - step, nfft=2 << (size - 1).bit_length(), boundary=None, padded=False,
    )  # fmt: skip
    mel = np.linspace(*(2595 * np.log10(1 + np.array([s.low, s.high]) / 700)), s.mels + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    picture = np.zeros((s.frames, s.mels))
    for band in range(s.mels):
        triangle = np.interp(frequencies, edges[band : band + 3], [0, 1, 0], left=0, right=0)
        power = (np.abs(transform[:, : s.frames]) ** 2 * triangle[:, None]).sum(axis=0)
        picture[:, band] = 10 * np.log10(np.maximum(power, 1e-10))
    return 255 * np.clip((picture - s.lowest) / (s.highest - s.lowest), 0, 1)


@pytest.mark.parametrize(
    "spectrogram", [Spectrogram(), Spectrogram(20, 30, 0.05, 0.02, 100.0, 3500.0, -70.0, 0.0)]
)
def test_it_is_the_slow_one_rounded(spectrogram):
    length = spectrogram.samples(RATE)
    time = np.arange(length) / RATE
    samples = 0.1 * np.random.default_rng(0).standard_normal(length)
    samples += np.sin(2 * np.pi * (500 + 1000 * time) * time)
    picture = spectrogram(samples, RATE)
    assert picture.dtype == np.uint8
    assert picture.shape == (spectrogram.frames, spectrogram.mels, 1)
    assert np.abs(picture[..., 0] - slow(samples, spectrogram)).max() <= 0.5 + 1e-3


def test_it_needs_just_its_samples():
    spectrogram = Spectrogram(frames=7)
    assert spectrogram.samples(RATE) == 256 + 6 * 64
    assert spectrogram(np.ones(spectrogram.samples(RATE) + 63), RATE).shape[0] == 7
    assert spectrogram(np.ones(spectrogram.samples(RATE) - 1), RATE).shape[0] == 6


def test_what_gives_no_picture_is_refused():
    for bad, message in (
        (Spectrogram(mels=0), "mels is 0"),
        (Spectrogram(lowest=-5.0), "lowest is -5.0 and highest -5.0"),
        (Spectrogram(high=4001.0), "do not fit into 0 to 4000"),
        (Spectrogram(mels=500), "500 mel bands are too many"),
        (Spectrogram(hop=0.0), "hop 0"),
    ):
        with pytest.raises(ValueError, match=message):
            bad.check(RATE)
