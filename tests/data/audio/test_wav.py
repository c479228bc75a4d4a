import io
import struct

import numpy as np
import pytest
from scipy.io import wavfile

from mmjax.data.audio.wav import read_wav

RAMP = np.linspace(-1, 1, 201)


def wav(samples, rate=8000):
    content = io.BytesIO()
    wavfile.write(content, rate, samples)
    return content.getvalue()


@pytest.mark.parametrize(
    ("samples", "step"),
    [
        (np.round(127 * RAMP + 128).astype(np.uint8), 1 / 128),
        (np.round(32767 * RAMP).astype(np.int16), 1 / 32768),
        (np.round((2.0**31 - 1) * RAMP).astype(np.int32), 1e-7),
        (RAMP.astype(np.float32), 1e-7),
    ],
)
def test_samples_are_in_their_types_share_of_one(samples, step):
    read, rate = read_wav(wav(samples, 11025))
    assert rate == 11025 and read.dtype == np.float32
    np.testing.assert_allclose(read, RAMP, atol=1.6 * step)
    assert np.abs(read).max() <= 1


def test_24_bits_are_read():
    values = [-(2**23), -1, 0, 1, 2**23 - 1]
    data = b"".join(v.to_bytes(3, "little", signed=True) for v in values)
    header = struct.pack("<IHHIIHH", 16, 1, 1, 8000, 24000, 3, 24)
    parts = b"WAVEfmt " + header + b"data" + struct.pack("<I", len(data)) + data + b"\0"
    read, _ = read_wav(b"RIFF" + struct.pack("<I", len(parts)) + parts)
    np.testing.assert_allclose(read, np.array(values) / 2**23, atol=1e-7)


def test_channels_are_averaged(tmp_path):
    samples = np.array([[1000, 3000], [-2000, 2000], [0, -8]], np.int16)
    (tmp_path / "two.wav").write_bytes(wav(samples))
    read, _ = read_wav(tmp_path / "two.wav")
    np.testing.assert_allclose(read, np.array([2000, 0, -4]) / 32768, atol=1e-9)


def test_a_chunk_that_holds_no_sound_is_passed_over():
    whole = wav(np.arange(5, dtype=np.int16))
    notes = b"note" + struct.pack("<I", 4) + b"abcd"
    with_notes = whole[:12] + notes + whole[12:]
    with_notes = with_notes[:4] + struct.pack("<I", len(with_notes) - 8) + with_notes[8:]
    np.testing.assert_array_equal(read_wav(with_notes)[0], read_wav(whole)[0])


WHOLE = wav(np.arange(500, dtype=np.int16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.wav is empty"),
        (b"ID3 this is no sound", r"x\.wav is not a whole WAV file"),
        (WHOLE[:10], r"x\.wav is not a whole WAV file"),
        (WHOLE[:30], r"x\.wav is not a whole WAV file"),
        (WHOLE[:400], r"x\.wav is not a whole WAV file: [^.]*\.$"),
        (WHOLE[:401], r"x\.wav is not a whole WAV file"),
        (WHOLE[:20] + b"\xff\xff" + WHOLE[22:], r"x\.wav is not a whole WAV file"),
        (WHOLE[:24] + bytes(8) + WHOLE[32:], r"x\.wav has a sample rate of 0 Hz"),
        (wav(np.zeros(0, np.int16)), r"x\.wav has no samples"),
        (wav(np.array([0, 1, np.nan, 0], np.float32)), r"x\.wav has a sample .* not finite, at 2"),
    ],
)
def test_what_is_no_whole_sound_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_wav(tmp_path / "x.wav")
    with pytest.raises(ValueError, match=message.replace(r"x\.wav", "row 7")):
        read_wav(content, name="row 7")


def test_every_truncation_is_noticed():
    short = wav(np.arange(8, dtype=np.int16))
    for size in range(len(short)):
        with pytest.raises(ValueError, match="clip"):
            read_wav(short[:size], name="clip")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.wav does not exist"):
        read_wav(tmp_path / "gone.wav")
