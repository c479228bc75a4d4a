import numpy as np
import pytest
import scipy.signal

from mmjax.data.audio.log_mel import log_mel, make_mel_filters, stft


def tone(hertz, seconds=0.5, rate=16000):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(("size", "step", "transform"), [(400, 160, 512), (128, 128, 128)])
def test_stft_is_scipys(size, step, transform):
    samples = np.random.default_rng(0).standard_normal(3000)
    _, _, expected = scipy.signal.stft(
        samples,
        window=scipy.signal.get_window("hann", size),
        nperseg=size,
        noverlap=size - step,
        nfft=transform,
        boundary=None,
        padded=False,
    )
    ours = stft(samples, size=size, step=step, transform=transform)
    assert ours.shape == (1 + (3000 - size) // step, transform // 2 + 1)
    np.testing.assert_allclose(ours, expected.T, atol=1e-12)


def test_filters_rise_and_fall_between_their_neighbours_peaks():
    bank = make_mel_filters(16000, 4096, 20, 100.0, 7000.0)
    mel = 2595 * np.log10(1 + np.array([100.0, 7000.0]) / 700)
    edges = 700 * (10 ** (np.linspace(*mel, 22) / 2595) - 1)
    frequencies = np.arange(2049) * 16000 / 4096
    for band in range(20):
        expected = np.interp(frequencies, edges[band : band + 3], [0, 1, 0], left=0, right=0)
        np.testing.assert_allclose(bank[:, band], expected, atol=1e-12)


def test_a_tone_is_loudest_in_its_band_and_twice_as_loud_is_four_times_the_power():
    for band in (3, 12, 30):
        mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)[1 + band]
        samples = tone(700 * (10 ** (mel / 2595) - 1))
        quiet, loud = log_mel(samples, 16000), log_mel(2 * samples, 16000)
        assert (quiet.argmax(axis=1) == band).all()
        np.testing.assert_allclose((loud - quiet)[:, band], np.log(4), atol=1e-5)


def test_frames_follow_the_hop_in_time():
    samples = np.concatenate([np.zeros(8000), tone(1000)])
    levels = log_mel(samples, 16000, window=0.02, hop=0.01).max(axis=1)
    assert len(levels) == 1 + (16000 - 320) // 160
    assert np.flatnonzero(levels > np.log(1e-10) + 1)[0] in (49, 50)  # the tone starts at 0.5 s


def test_silence_and_short_signals_are_finite():
    assert (log_mel(np.zeros(4000), 16000) == np.float32(np.log(1e-10))).all()
    assert log_mel(np.ones(3), 16000).shape == (1, 40)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"0.0 to 9000.0 Hz do not fit into 0 to 8000.0"):
        log_mel(tone(100), 16000, high=9000.0)
    with pytest.raises(ValueError, match="200 mel bands are too many for a window of 512"):
        log_mel(tone(100), 16000, mels=200)
    with pytest.raises(ValueError, match="hop 0; both must be at least 1"):
        log_mel(tone(100), 16000, hop=0.0)
    with pytest.raises(ValueError, match="transform is 256; it must be at least a frame's 400"):
        log_mel(tone(100), 16000, transform=256)


def test_a_longer_transform_resolves_narrower_bands():
    with pytest.raises(ValueError, match="a longer transform"):
        log_mel(tone(100), 16000, mels=200)
    levels = log_mel(tone(1000), 16000, mels=200, transform=2048)
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 202)[1:-1]
    expected = np.abs(700 * (10 ** (mel / 2595) - 1) - 1000).argmin()
    assert (np.abs(levels.argmax(axis=1) - expected) <= 1).all()
