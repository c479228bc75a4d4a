"""Makes the examples of polyglot_digits and stores them as a TFDS data set of array records."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Int, UInt8

from mmjax.data.audio.log_mel import log_mel
from mmjax.data.audio.speech import SpeechSynthesizer
from mmjax.data.builtin import tfds_builder
from mmjax.data.builtin.polyglot_digits_config import (
    LANGUAGES,
    MODALITIES,
    TASKS,
    Noise,
    PolyglotDigitsConfig,
)
from mmjax.data.builtin.tfds_builder import Example

_SPLITS = ("train", "validation", "test")
_SCAN_SHARES = {"train": 0.65, "validation": 0.1, "test": 0.25}  # share of all scans
# Variants of eSpeak NG that all speak at its usual pace, so that the rate can be inferred.
_VOICE_LISTS = {
    "train": (
        "m1 m5 m6 m8 Alex Annie Diogo Henrique Jacky Mario Michael Mike Tweaky boris fast "
        "grandpa iven iven3 max michel miguel paul rob steph travis zac"
    ),
    "validation": "Hugo gustave robert steph3",
    "test": "m7 Denis norbert quincy belinda john marcelo Nguyen",
}
VOICES = {split: voices.split() for split, voices in _VOICE_LISTS.items()}
_RATES = (120, 320)  # words per minute
_PITCHES = (30, 70)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_LOWEST_DECIBELS, _DECIBELS_PER_STEP = (
    -90.0,
    0.5,
)  # in decibels: a level is stored as steps above the lowest


class PolyglotDigits(tfds_builder.Builder):
    """Digits as handwriting, speech and text; see `mmjax.data.builtin.polyglot_digits`."""

    VERSION = tfds.core.Version(PolyglotDigitsConfig.version)

    def _info(self) -> tfds.core.DatasetInfo:
        classes = {t: task.classes for t, task in TASKS.items() if task.classes}
        features = {
            "inputs": {m: _make_bytes_feature(m) for m in MODALITIES},
            "present": dict.fromkeys(MODALITIES, np.bool_),
            "targets": {t: tfds.features.ClassLabel(names=c) for t, c in classes.items()}
            | {"rate": np.float32},
            "labeled": dict.fromkeys(TASKS, np.bool_),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), description=__doc__
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Example]]]:
        generators = {}
        for split in _SPLITS:
            size = self.recipe.sizes[split]
            generators[split] = self.numbered(split, self._generate_examples(split), size)
        return generators

    def _generate_examples(self, split: str) -> Iterator[Example]:
        recipe = self.recipe
        scans, words, synthesizer = (
            _load_scans(split, recipe.seed),
            _load_number_words(),
            SpeechSynthesizer(),
        )
        for index in range(recipe.sizes[split]):
            # One generator per example, so that none depends on the number of others.
            rng = np.random.default_rng([recipe.seed, _SPLITS.index(split), index])
            example = _make_example(rng, scans, words, synthesizer, VOICES[split], recipe.noise)
            yield _drop_modalities_and_labels(rng, example, *_get_missing_shares(recipe, split))


def _make_bytes_feature(modality: str) -> tfds.features.Tensor:
    shape, sequence = MODALITIES[modality][:2]
    return tfds.features.Tensor(
        shape=(None, *shape[1:]) if sequence else shape,
        dtype=np.uint8,
        encoding=tfds.features.Encoding.BYTES,
    )


def _get_missing_shares(recipe: PolyglotDigitsConfig, split: str) -> tuple[float, float]:
    if split == "train":
        return recipe.missing_modalities, recipe.missing_labels
    return recipe.missing_in_evaluation, recipe.missing_in_evaluation


def _load_scans(split: str, seed: int) -> list[Float[np.ndarray, "_ 8 8"]]:
    """Loads the split's scans of each digit, with values 0 to 1."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    ends = np.round(np.cumsum([_SCAN_SHARES[s] for s in _SPLITS]) * len(images)).astype(int)
    chosen = np.split(order, ends)[_SPLITS.index(split)]
    return [images[chosen][digits[chosen] == d].reshape(-1, 8, 8) / 16 for d in range(10)]


def _load_number_words() -> dict[str, list[str]]:
    """Returns the words for 0 to 9 in each language."""
    try:
        from num2words import num2words
    except ImportError as error:
        raise ImportError("Number words need num2words: pip install 'mmjax[demo]'.") from error
    return {language: [num2words(d, lang=language) for d in range(10)] for language in LANGUAGES}


def _make_example(
    rng: np.random.Generator,
    scans: list[Float[np.ndarray, "_ 8 8"]],
    words: dict[str, list[str]],
    synthesizer: SpeechSynthesizer,
    voices: list[str],
    noise: Noise,
) -> Example:
    """Draws a complete example."""
    digit, language = int(rng.integers(10)), str(rng.choice(list(LANGUAGES)))
    word, scan = words[language][digit], rng.choice(scans[digit])
    rate = int(rng.integers(*_RATES, endpoint=True))
    pitch = int(rng.integers(*_PITCHES, endpoint=True))
    utterance = synthesizer.synthesize(
        word, f"{language}+{rng.choice(voices)}", rate=rate, pitch=pitch
    )
    return {
        "inputs": {
            "image": _add_pixel_noise(scan, rng, noise.pixels),
            "speech": compute_speech_levels(utterance, synthesizer.sample_rate, rng, noise.snr),
            "text": type_with_errors(word, rng, noise.typing),
        },
        "targets": {
            "digit": digit,
            "language": list(LANGUAGES).index(language),
            "rate": float(rate),
        },
    }


def _add_pixel_noise(
    scan: Float[np.ndarray, "8 8"], rng: np.random.Generator, deviation: float
) -> UInt8[np.ndarray, "8 8 1"]:
    """Adds noise to a scan and stores it in 8 bits."""
    noisy = scan + deviation * rng.standard_normal(scan.shape)
    return np.round(255 * np.clip(noisy, 0, 1)).astype(np.uint8)[:, :, None]


def compute_speech_levels(
    utterance: Int[np.ndarray, " samples"],
    sample_rate: int,
    rng: np.random.Generator,
    snr: tuple[float, float],
) -> UInt8[np.ndarray, "frames mels"]:
    """Trims silence, adds white noise, and computes the log-mel levels in 8 bits."""
    loudness = np.abs(utterance.astype(np.float64))
    # The synthesizer's silence before and after the word is cut, so that its length tells nothing.
    loud = np.flatnonzero(loudness > 0.02 * loudness.max())
    speech = utterance[loud[0] : loud[-1] + 1].astype(np.float64)
    speech /= 10 * np.sqrt(np.mean(speech**2))  # a root mean square of 0.1
    noise = 0.1 * 10 ** (-rng.uniform(*snr) / 20) * rng.standard_normal(len(speech))
    longest, mels = MODALITIES["speech"].shape
    logs = log_mel(
        speech + noise, sample_rate, window=0.032, hop=0.02, mels=mels, low=60.0, high=8000.0
    )
    # Decibels as 8-bit steps of half a decibel above the lowest level.
    steps = (10 / np.log(10) * logs[:longest] - _LOWEST_DECIBELS) / _DECIBELS_PER_STEP
    return np.round(np.clip(steps, 0, 255)).astype(np.uint8)


def type_with_errors(
    word: str, rng: np.random.Generator, share: float
) -> UInt8[np.ndarray, " bytes"]:
    """Types a word in UTF-8, with errors: letters are omitted, added, replaced or swapped."""
    letters = list(word)
    # Backwards, so that an error does not move the letters that are still to be typed.
    for position in reversed(range(len(word))):
        if rng.random() < share:
            _mistype_letter(letters, position, rng)
    encoded = "".join(letters or word[0]).encode()[: MODALITIES["text"].shape[0]]
    return np.frombuffer(encoded, np.uint8)


def _mistype_letter(letters: list[str], position: int, rng: np.random.Generator) -> None:
    """Makes one typing error, in place."""
    kind, other = rng.integers(4), _ALPHABET[rng.integers(len(_ALPHABET))]
    if kind == 0:
        del letters[position]
    elif kind == 1:
        letters.insert(position, other)
    elif kind == 2:
        letters[position] = other
    else:
        letters[position : position + 2] = reversed(letters[position : position + 2])


def _drop_modalities_and_labels(
    rng: np.random.Generator, example: Example, modalities: float, labels: float
) -> Example:
    """Removes modalities, but not all, and labels of an example, with the given shares."""
    present = dict(
        zip(MODALITIES, (rng.random(len(MODALITIES)) >= modalities).tolist(), strict=True)
    )
    # No example may lack every modality.
    if not any(present.values()):
        present[str(rng.choice(list(MODALITIES)))] = True
    labeled = dict(zip(TASKS, (rng.random(len(TASKS)) >= labels).tolist(), strict=True))
    inputs, targets = example["inputs"], example["targets"]
    return {
        "inputs": {m: x if present[m] else _make_absent_input(m, x) for m, x in inputs.items()},
        "present": present,
        "targets": {t: y if labeled[t] else 0 for t, y in targets.items()},
        "labeled": labeled,
    }


def _make_absent_input(modality: str, x: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    return x[:0] if MODALITIES[modality].sequence else np.zeros_like(x)
