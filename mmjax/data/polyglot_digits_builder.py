"""Makes the examples of polyglot_digits and stores them as a TFDS data set of array records."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.audio import log_mel
from mmjax.data.polyglot_digits import LANGUAGES, MODALITIES, TASKS, Noise
from mmjax.data.speech import Speaker

SPLITS = ("train", "validation", "test")
# Share of the scans, and eSpeak's variants, of each split. Every variant here takes eSpeak's usual
# time for a word, so that its rate can be told, and draws no random numbers.
SCANS = {"train": 0.65, "validation": 0.1, "test": 0.25}
VOICES = {
    "train": (
        "m1 m5 m6 m8 Alex Annie Diogo Henrique Jacky Mario Michael Mike Tweaky boris fast "
        "grandpa iven iven3 max michel miguel paul rob steph travis zac"
    ).split(),
    "validation": "Hugo gustave robert steph3".split(),
    "test": "m7 Denis norbert quincy belinda john sandro victor".split(),
}
RATES = (130, 270)  # words a minute
PITCHES = (30, 70)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
DECIBELS = (-90, 0.5)  # level that is stored as 0, and the step from one stored level to the next


@dataclasses.dataclass(eq=False, kw_only=True)
class PolyglotDigitsConfig(tfds.core.BuilderConfig):
    """The arguments of `polyglot_digits`; each set of them is stored under a name of its own."""

    name: str = ""
    seed: int
    sizes: dict[str, int]
    missing_modalities: float
    missing_labels: float
    missing_in_evaluation: float
    noise: Noise

    def __post_init__(self) -> None:
        for split, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{split} is {size}; a split needs at least 1 example.")
        for share in ("missing_modalities", "missing_labels", "missing_in_evaluation"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"{share} is {getattr(self, share)}; it must be 0 to 1.")
        fields = [getattr(self, f) for f in ("sizes", "noise")] + [
            self.missing_modalities, self.missing_labels, self.missing_in_evaluation
        ]
        self.name = f"seed{self.seed}-{hashlib.sha256(repr(fields).encode()).hexdigest()[:12]}"


class PolyglotDigits(tfds.core.GeneratorBasedBuilder):
    """Digits as handwriting, speech and text; see `mmjax.data.polyglot_digits`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    # TFDS would find this file with the help of a package that it does not require.
    code_path = pathlib.Path(__file__)

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(*shape: int | None) -> tfds.features.Tensor:
            return tfds.features.Tensor(
                shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
            )

        flag = tfds.features.Scalar(np.bool_)
        features = tfds.features.FeaturesDict({
            "inputs": {
                "image": tensor(*MODALITIES["image"].shape),
                "speech": tensor(None, *MODALITIES["speech"].shape[1:]),
                "text": tensor(None),
            },
            "present": {m: flag for m in MODALITIES},
            "targets": {
                "digit": tfds.features.ClassLabel(names=TASKS["digit"].classes),
                "language": tfds.features.ClassLabel(names=TASKS["language"].classes),
                "rate": tfds.features.Scalar(np.float32),
            },
            "labeled": {t: flag for t in TASKS},
        })
        return self.dataset_info_from_configs(features=features, description=__doc__)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        scans, words, speaker = _scans(split, config.seed), _words(), Speaker()
        for index in range(config.sizes[split]):
            rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
            example = _example(rng, split, scans, words, speaker, config.noise)
            yield index, _with_gaps(rng, example, config, split)


def prepare(
    config: PolyglotDigitsConfig, data_dir: str | None
) -> dict[str, list[dict[str, Any]]]:
    """The examples of each split; made and stored if they are not there yet."""
    builder = PolyglotDigits(config=config, data_dir=data_dir, file_format="array_record")
    try:
        builder.download_and_prepare()
    except OSError:
        pass
    return {s: list(builder.as_data_source(s).__getitems__(range(config.sizes[s]))) for s in SPLITS}


def _scans(split: str, seed: int) -> list[np.ndarray]:
    """The split's scans of each digit, 8x8 with values 0 to 1."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    edges = np.cumsum([0] + [round(SCANS[s] * len(images)) for s in SPLITS])
    chosen = order[edges[SPLITS.index(split)] : edges[SPLITS.index(split) + 1]]
    return [images[chosen][digits[chosen] == d].reshape(-1, 8, 8) / 16 for d in range(10)]


def _words() -> dict[str, list[str]]:
    from num2words import num2words

    return {language: [num2words(d, lang=language) for d in range(10)] for language in LANGUAGES}


def _example(rng, split, scans, words, speaker, noise: Noise):
    digit = int(rng.integers(10))
    language = str(rng.choice(list(LANGUAGES)))
    rate = int(rng.integers(*RATES, endpoint=True))
    word = words[language][digit]
    voice = f"{language}+{rng.choice(VOICES[split])}"
    pitch = int(rng.integers(*PITCHES, endpoint=True))
    utterance = speaker.say(word, voice, rate=rate, pitch=pitch)
    return {
        "inputs": {
            "image": scribbled(scans[digit][rng.integers(len(scans[digit]))], rng, noise),
            "speech": heard(utterance, speaker.sample_rate, rng, noise),
            "text": typed(word, rng, noise),
        },
        "targets": {
            "digit": digit, "language": list(LANGUAGES).index(language), "rate": float(rate),
        },
    }


def scribbled(scan, rng, noise):
    noisy = scan + noise.pixels * rng.standard_normal(scan.shape)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)[:, :, None]


def heard(utterance, sample_rate, rng, noise):
    speech = _trimmed(utterance.astype(np.float64))
    speech /= np.sqrt(np.mean(speech**2))
    snr = rng.uniform(*noise.snr)
    noisy = speech + 10 ** (-snr / 20) * rng.standard_normal(len(speech))
    frames, mels = MODALITIES["speech"].shape
    levels = log_mel(noisy / 10, sample_rate, window=0.032, hop=0.02, mels=mels, low=60, high=8000)
    decibels = 10 / np.log(10) * levels[:frames]
    return np.clip(np.round((decibels - DECIBELS[0]) / DECIBELS[1]), 0, 255).astype(np.uint8)


def _trimmed(samples):
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def typed(word, rng, noise):
    letters: list[str] = []
    for letter in word:
        letters += _mistyped(letter, rng) if rng.random() < noise.typing else [letter]
    swap = rng.random() < noise.typing
    encoded = "".join(letters or word[0]).encode()[: MODALITIES["text"].shape[0]]
    return np.frombuffer(encoded, np.uint8) + np.uint8(1)


def _mistyped(letter, rng):
    other = ALPHABET[rng.integers(len(ALPHABET))]
    return [[], [other], [letter, other]][rng.integers(3)]


def _with_gaps(rng, example, config, split):
    train = split == "train"
    modalities = config.missing_modalities if train else config.missing_in_evaluation
    labels = config.missing_labels if train else config.missing_in_evaluation
    present = dict(zip(MODALITIES, (rng.random(len(MODALITIES)) >= modalities).tolist()))
    if not any(present.values()):
        present[str(rng.choice(list(MODALITIES)))] = True
    labeled = dict(zip(TASKS, (rng.random(len(TASKS)) >= labels).tolist()))
    inputs = {
        m: x if present[m] else np.zeros_like(x if m == "image" else x[:0])
        for m, x in example["inputs"].items()
    }
    targets = {t: y if labeled[t] else type(y)(0) for t, y in example["targets"].items()}
    return {"inputs": inputs, "present": present, "targets": targets, "labeled": labeled}
