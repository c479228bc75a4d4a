import hashlib
import subprocess
import sys

import numpy as np
import pytest

from mmjax.data.audio.speech import SpeechSynthesizer

pytest.importorskip("espeakng_loader")

SCRIPT = """
import hashlib
from mmjax.data.audio.speech import SpeechSynthesizer
speaker = SpeechSynthesizer()
for text, voice in [("sieben", "de+m1"), ("seven", "en+Annie"), ("yedi", "tr+m7")]:
    print(hashlib.sha256(speaker.synthesize(text, voice, rate=150).tobytes()).hexdigest())
"""
SAID = [("sieben", "de+m1"), ("seven", "en+Annie"), ("yedi", "tr+m7")]


def digests(speaker):
    said = [speaker.synthesize(text, voice, rate=150) for text, voice in SAID]
    return [hashlib.sha256(samples.tobytes()).hexdigest() for samples in said]


def test_speakers_of_one_process_and_of_another_say_the_same():
    here = SpeechSynthesizer()
    expected = digests(here)
    for _ in range(3):
        here.synthesize("something else", "en+f2")  # must not reach the next speaker
        assert digests(SpeechSynthesizer()) == expected
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert other.stdout.split() == expected
    assert len(set(expected)) == 3


def test_speakers_side_by_side_do_not_disturb_one_another():
    alone = SpeechSynthesizer()
    expected = [alone.synthesize("acht", "de+m1") for _ in range(3)]
    first, second = SpeechSynthesizer(), SpeechSynthesizer()
    for samples in expected:
        np.testing.assert_array_equal(first.synthesize("acht", "de+m1"), samples)
        second.synthesize("huit", "fr+m5", rate=300, pitch=80)


def spoken(samples):
    loud = np.flatnonzero(np.abs(samples.astype(float)) > 500)
    return samples[loud[0] : loud[-1]].astype(float)


def test_rate_shortens_and_pitch_raises():
    speaker = SpeechSynthesizer()
    slow, fast = (spoken(speaker.synthesize("seven", "en+m1", rate=r)) for r in (120, 240))
    assert 1.6 < len(slow) / len(fast) < 2.4

    def fundamental(samples):
        smooth = np.convolve(samples, np.ones(40) / 40, "same")[len(samples) // 3 :][:4096]
        echo = np.correlate(smooth, smooth, "full")[len(smooth) - 1 :]
        shortest, longest = speaker.sample_rate // 300, speaker.sample_rate // 50
        return speaker.sample_rate / (shortest + np.argmax(echo[shortest:longest]))

    said = [speaker.synthesize("nine nine nine", "en+m1", rate=120, pitch=p) for p in (10, 50, 90)]
    low, middle, high = (fundamental(samples.astype(float)) for samples in said)
    assert 50 < low < 0.8 * middle < middle < 0.8 * high < 200


def test_languages_differ_and_nothing_is_silence():
    speaker = SpeechSynthesizer()
    french, english = (speaker.synthesize("six", voice) for voice in ("fr+m1", "en+m1"))
    assert len(french) != len(english)
    assert french.dtype == np.int16
    assert not speaker.synthesize("", "en").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voice": "xx+m1"}, "no voice 'xx\\+m1'"),
        ({"voice": "en+nobody"}, "no voice 'en\\+nobody'"),
        ({"rate": 79}, "rate is 79; it must be 80 to 450"),
        ({"pitch": 100}, "pitch is 100; it must be 0 to 99"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SpeechSynthesizer().synthesize("one", **{"voice": "en", **options})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r"pip install 'mmjax\[demo\]'"):
        SpeechSynthesizer()
