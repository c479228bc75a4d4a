import numpy as np
import pytest

from mmjax.data.audio.noise import NOISE_KINDS, make_noise, mix_with_noise

RATE, LENGTH = 8000, 8000
WORD = np.sin(np.arange(2000) / 5) * np.linspace(0.2, 0.9, 2000)
OTHERS = [np.sin(np.arange(n) / k) for n, k in ((900, 3.0), (20_000, 7.0), (3000, 2.0))]


def rms(x):
    return np.sqrt(np.mean(x**2))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("snr", [-12.0, 0.0, 7.5])
def test_the_level_in_decibels_is_the_one_asked_for(kind, snr):
    clean = mix_with_noise(WORD, LENGTH, rng(), kind=kind, snr=np.inf, others=OTHERS)
    noisy = mix_with_noise(WORD, LENGTH, rng(), kind=kind, snr=snr, others=OTHERS)
    word = clean[clean != 0]
    assert abs(len(word) - 2000) <= 1  # the first sample of a sine is 0
    speech, background = rms(clean) * np.sqrt(LENGTH / 2000), rms(noisy - clean)
    np.testing.assert_allclose(20 * np.log10(speech / background), snr, atol=1e-6)
    np.testing.assert_allclose(speech, 0.1, rtol=1e-9)


def test_speech_starts_anywhere_and_is_whole_or_cut_at_its_end():
    starts = set()
    for seed in range(60):
        clean = mix_with_noise(WORD[1:], 3000, rng(seed), kind="white", snr=np.inf)
        start = int(np.flatnonzero(clean)[0])
        starts.add(start)
        np.testing.assert_allclose(
            clean[start : start + 1999] / 0.1 * rms(WORD[1:]), WORD[1:], atol=1e-9
        )
    assert len(starts) > 50 and 0 <= min(starts) < 100 and 900 < max(starts) <= 1001
    cut = mix_with_noise(WORD, 500, rng(), kind="white", snr=np.inf)
    np.testing.assert_allclose(cut * rms(WORD[:500]) / 0.1, WORD[:500], atol=1e-9)


def test_white_noise_has_the_same_power_everywhere_and_pink_half_an_octave_higher():
    power = {k: np.zeros(LENGTH // 2 + 1) for k in ("white", "pink")}
    for kind, total in power.items():
        for seed in range(40):
            total += np.abs(np.fft.rfft(make_noise(kind, LENGTH, rng(seed), []))) ** 2
    for kind, ratio in (("white", 1.0), ("pink", 0.5)):
        octaves = [power[kind][low : 2 * low].mean() for low in (200, 400, 800, 1600)]
        np.testing.assert_allclose(np.divide(octaves[1:], octaves[:-1]), ratio, rtol=0.05)


def test_noise_differs_from_draw_to_draw_and_babble_is_made_of_the_others():
    for kind in NOISE_KINDS:
        first, second = (make_noise(kind, LENGTH, rng(seed), OTHERS) for seed in (1, 2))
        assert np.abs(first - second).max() > 0.1
    one = np.where(np.arange(LENGTH) == 0, 5.0, 0.0)
    babble = make_noise("babble", LENGTH, rng(), [one])
    assert np.count_nonzero(babble) == 4  # voices, each from a place of its own
    np.testing.assert_allclose(babble[babble != 0], np.sqrt(LENGTH), rtol=1e-9)
