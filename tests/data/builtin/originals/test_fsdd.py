import io
import zipfile

import numpy as np
import pytest
from scipy.io import wavfile

from mmjax.data.builtin.originals.fsdd import read_fsdd


def wav(samples, rate=8000):
    content = io.BytesIO()
    wavfile.write(content, rate, np.asarray(samples, np.int16))
    return content.getvalue()


def recordings(speakers=("george", "theo"), takes=2):
    """{name: content}: each recording holds its own number."""
    names = [f"{d}_{s}_{t}.wav" for d in range(10) for s in speakers for t in range(takes)]
    return {name: wav([number + 1] * 20) for number, name in enumerate(names)}


def archive(path, files, folder="recordings/"):
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("README.md", "about")
        for name, content in files.items():
            zipped.writestr(folder + name, content)
    return path


@pytest.mark.parametrize("folder", ["recordings/", "free-spoken-digit-dataset-1.0.10/recordings/"])
def test_an_archive_is_read_in_order(tmp_path, folder):
    files = recordings()
    shuffled = dict(reversed(files.items()))
    clips, damaged = read_fsdd(archive(tmp_path / "r.zip", shuffled, folder))
    assert not damaged
    assert [f"{c.digit}_{c.speaker}_{c.take}.wav" for c in clips] == list(files)
    for number, clip in enumerate(clips):
        np.testing.assert_allclose(clip.samples, np.full(20, (number + 1) / 32768), atol=1e-9)


def test_a_folder_is_read_as_the_archive_is(tmp_path):
    files = recordings(takes=11)  # 10 comes after 9, though not by its letters
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    clips, _ = read_fsdd(tmp_path)
    assert [f"{c.digit}_{c.speaker}_{c.take}.wav" for c in clips] == list(files)


def test_what_is_wrong_is_refused_by_name(tmp_path):
    cases = {
        r"3_theo_1\.wav has 16000 samples per second; all recordings must have 8000": {
            "3_theo_1.wav": wav([1, 2], rate=16000)
        },
        r"seven_theo_1\.wav: the name must be DIGIT_SPEAKER_TAKE\.wav": {
            "seven_theo_1.wav": wav([1])
        },
        r"3_theo_1\.wav is silent": {"3_theo_1.wav": wav([0, 0])},
        r"3_theo_1\.wav is not a whole WAV .* skip_damaged=True leaves such files out": {
            "3_theo_1.wav": wav([1] * 50)[:70]
        },
        r"lacks 19 recordings, the first of them 0_george_2\.wav": {"4_theo_2.wav": wav([1])},
    }
    for number, (message, change) in enumerate(cases.items()):
        path = archive(tmp_path / f"{number}.zip", recordings() | change)
        with pytest.raises(ValueError, match=message):
            read_fsdd(path)


def test_archives_that_are_none(tmp_path):
    whole = archive(tmp_path / "r.zip", recordings()).read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.zip is not a whole zip archive"):
        read_fsdd(tmp_path / "half.zip")
    with pytest.raises(ValueError, match=r"empty\.zip has no WAV files"):
        read_fsdd(archive(tmp_path / "empty.zip", {}))


def test_damaged_recordings_are_left_out_and_told_if_so_wished(tmp_path):
    files = recordings()
    path = archive(tmp_path / "r.zip", files | {"3_theo_1.wav": b"no sound"})
    content = bytearray(path.read_bytes())
    place = content.find(files["5_george_0.wav"])
    content[place + 50] ^= 1  # the archive's own checksum tells
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"3_theo_1\.wav"):
        read_fsdd(path)
    clips, damaged = read_fsdd(path, skip_damaged=True)
    left = {(c.digit, c.speaker, c.take) for c in clips}
    assert len(left) == len(files) - 2
    assert not left & {(3, "theo", 1), (5, "george", 0)}
    assert len(damaged) == 2 and "3_theo_1.wav" in damaged[0] and "5_george_0.wav" in damaged[1]
