import difflib
import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmjax.data.builtin.polyglot_digits import polyglot_digits
from mmjax.data.builtin.polyglot_digits_config import LANGUAGES, Noise
from mmjax.data.checks.validate import validate_split

pytest.importorskip("espeakng_loader")
num2words = pytest.importorskip("num2words").num2words

SMALL = {"train": 128, "validation": 24, "test": 32}
CLEAN = Noise(pixels=0.0, snr=(60.0, 60.0), typing=0.0)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("clean"))
    return polyglot_digits(
        **SMALL, noise=CLEAN, missing_modalities=0.0, missing_labels=0.0, data_dir=folder
    )


def batches(data):
    return {split: source.batch for split, source in data.splits.items()}


def records(folder):
    files = sorted(pathlib.Path(folder).rglob("*.array_record*"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def prepare_small(folder):
    """Starts a process of its own that prepares the small set."""
    call = f"polyglot_digits(**{SMALL!r}, data_dir={str(folder)!r})"
    code = f"from mmjax.data.builtin.polyglot_digits import polyglot_digits; {call}"
    return subprocess.Popen([sys.executable, "-c", code])


def test_it_keeps_what_it_promises(clean, tmp_path):
    for data in (clean, polyglot_digits(**SMALL, data_dir=str(tmp_path))):
        for split, batch in batches(data).items():
            assert len(data.splits[split]) == SMALL[split]
            validate_split(data.name, split, batch, data.modalities, data.tasks)
            for name, lengths in batch.lengths.items():
                places = np.arange(batch.inputs[name].shape[1])
                beyond = places[None] >= lengths[:, None]
                assert (batch.inputs[name][beyond] == 0).all()


def test_text_is_the_number_word(clean):
    for batch in batches(clean).values():
        rows = zip(
            batch.inputs["text"], batch.lengths["text"], batch.targets["digit"],
            batch.targets["language"], strict=True,
        )  # fmt: skip
        for ids, length, digit, language in rows:
            word = num2words(int(digit), lang=list(LANGUAGES)[language])
            assert bytes((ids[:length] - 1).astype(np.uint8)).decode() == word


def test_images_are_scans_of_the_digit_and_splits_share_none(clean):
    scans, digits = load_digits(return_X_y=True)
    found = {}
    for split, batch in batches(clean).items():
        images = batch.inputs["image"].reshape(-1, 64)
        distance = np.abs(images[:, None] - scans[None] / 16).max(axis=-1)
        assert distance.min(axis=1).max() < 1 / 255  # stored in 8 bits
        found[split] = set(distance.argmin(axis=1).tolist())
        np.testing.assert_array_equal(digits[distance.argmin(axis=1)], batch.targets["digit"])
    assert not found["train"] & (found["validation"] | found["test"])
    assert not found["validation"] & found["test"]


def test_no_voice_is_in_two_splits():
    from mmjax.data.builtin.polyglot_digits_builder import VOICES

    voices = [voice for split in VOICES.values() for voice in split]
    assert len(voices) == len(set(voices))


def test_no_voice_speaks_with_breath_or_by_klatt_which_vary_from_run_to_run():
    import espeakng_loader

    from mmjax.data.builtin.polyglot_digits_builder import VOICES

    folder = pathlib.Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    for voice in (voice for split in VOICES.values() for voice in split):
        lines = (folder / voice).read_text().splitlines()
        assert not [line for line in lines if line.lstrip().startswith(("breath", "klatt"))]


def test_speech_is_standardized_over_the_training_frames(clean):
    batch = batches(clean)["train"]
    frames = np.arange(batch.inputs["speech"].shape[1])[None] < batch.lengths["speech"][:, None]
    speech = batch.inputs["speech"][frames].astype(np.float64)
    np.testing.assert_allclose(speech.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(speech.std(axis=0), 1, atol=1e-4)


def test_speech_takes_as_long_as_its_rate_says(clean):
    batch = batches(clean)["train"]
    length, rate = np.log(batch.lengths["speech"]), np.log(batch.targets["rate"])
    assert ((batch.targets["rate"] >= 120) & (batch.targets["rate"] <= 320)).all()
    letters = np.log(batch.lengths["text"])
    terms = np.stack([rate, letters, np.ones_like(rate)], axis=1)
    slope = np.linalg.lstsq(terms, length, rcond=None)[0][0]
    assert -1.4 < slope < -0.6  # a word at twice the rate takes half the time


def test_noise_blurs_scans_and_mistypes_words(tmp_path, clean):
    noisy = polyglot_digits(
        **SMALL, noise=Noise(pixels=0.2, snr=(0.0, 0.0), typing=0.3), missing_modalities=0.0,
        missing_labels=0.0, data_dir=str(tmp_path),
    )  # fmt: skip
    plain, noisy = batches(clean)["train"], batches(noisy)["train"]
    middle = (plain.inputs["image"] > 0.4) & (plain.inputs["image"] < 0.6)  # far from the clipping
    same = (plain.targets["digit"] == noisy.targets["digit"]).all()
    assert same  # the noise is drawn after what it falls on
    first = np.abs(plain.inputs["image"] - noisy.inputs["image"])[middle]
    assert first.size > 50 and 0.1 < first.mean() < 0.25  # 0.2 * sqrt(2 / pi) = 0.16
    alike = [
        difflib.SequenceMatcher(None, list(a), list(b)).ratio()
        for a, b in zip(plain.inputs["text"], noisy.inputs["text"], strict=True)
    ]
    changed = np.mean(np.array(alike) < 1)
    assert 0.5 < changed < 0.95


def test_shares_of_missing_parts(tmp_path):
    data = polyglot_digits(
        train=600, validation=100, test=100, missing_modalities=0.3, missing_labels=0.2,
        data_dir=str(tmp_path),
    )  # fmt: skip
    train = batches(data)["train"]
    present = np.stack(list(train.present.values()))
    assert present.any(axis=0).all()
    assert abs(present.mean() - (0.7 + 0.3**3 / 3)) < 0.04
    for labeled in train.labeled.values():
        assert abs(labeled.mean() - 0.8) < 0.06
    for name, here in train.present.items():
        assert (train.inputs[name][~here] == 0).all()
        assert name == "image" or (train.lengths[name][~here] == 0).all()
    for name, here in train.labeled.items():
        assert (train.targets[name][~here] == 0).all()
    for split in ("validation", "test"):
        batch = batches(data)[split]
        assert all(v.all() for v in (*batch.present.values(), *batch.labeled.values()))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(tmp_path):
    for folder in ("a", "b"):
        polyglot_digits(**SMALL, data_dir=str(tmp_path / folder))
    polyglot_digits(**SMALL, seed=1, data_dir=str(tmp_path / "c"))
    assert prepare_small(tmp_path / "d").wait() == 0
    a, b, c, d = (records(tmp_path / folder) for folder in "abcd")
    assert len(a) == 3 and a == b == d
    assert not set(a) & set(c)


def test_it_is_prepared_once_and_configurations_lie_apart(tmp_path, monkeypatch):
    first = polyglot_digits(**SMALL, data_dir=str(tmp_path))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record*")}
    with monkeypatch.context() as patch:
        patch.setattr("mmjax.data.builtin.polyglot_digits_builder.SpeechSynthesizer", None)
        again = polyglot_digits(**SMALL, data_dir=str(tmp_path))
    for old, new in zip(batches(first)["test"], batches(again)["test"], strict=True):
        for key in old:
            np.testing.assert_array_equal(old[key], new[key])
    polyglot_digits(**SMALL, missing_labels=0.5, data_dir=str(tmp_path))
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record*")}
    assert len(before) == 3 and len(after) == 6
    assert before.items() <= after.items()


def test_an_interrupted_preparation_leaves_nothing_to_read(tmp_path, monkeypatch):
    from mmjax.data.builtin import polyglot_digits_builder

    made = polyglot_digits_builder.type_with_errors

    def interrupted(word, rng, share):
        if rng.random() < 0.02:
            raise KeyboardInterrupt
        return made(word, rng, share)

    with monkeypatch.context() as patch:
        patch.setattr(polyglot_digits_builder, "type_with_errors", interrupted)
        with pytest.raises(KeyboardInterrupt):
            polyglot_digits(**SMALL, data_dir=str(tmp_path / "a"))
    assert not records(tmp_path / "a")
    for folder in ("a", "b"):
        polyglot_digits(**SMALL, data_dir=str(tmp_path / folder))
    assert records(tmp_path / "a") == records(tmp_path / "b")


@pytest.mark.slow
def test_two_at_once_do_not_collide(tmp_path):
    processes = [prepare_small(tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(records(tmp_path)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train is 0; a split needs at least 1 example"),
        ({"missing_labels": 1.5}, r"missing_labels is 1\.5; it must be 0 to 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        polyglot_digits(**{**SMALL, **options}, data_dir=str(tmp_path))


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    from mmjax.data.builtin import polyglot_digits_builder

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(polyglot_digits_builder, "compute_speech_levels", full)
    with pytest.raises(OSError, match="No space left"):
        polyglot_digits(**SMALL, data_dir=str(tmp_path))
    assert not records(tmp_path)
