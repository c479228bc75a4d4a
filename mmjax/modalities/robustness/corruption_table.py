"""Which corruptions a modality can have, by what kind of input it is."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from mmjax.data.dataset import Modality
from mmjax.modalities.robustness import image_corruptions as image
from mmjax.modalities.robustness import series_corruptions as series
from mmjax.modalities.robustness import text_corruptions as text
from mmjax.modalities.robustness import vector_corruptions as vector
from mmjax.modalities.robustness.corruption import Corruption
from mmjax.modalities.robustness.input_statistics import InputStatistics

MISSING = "missing"
_Factory = Callable[[InputStatistics], Corruption]
_TOKENS: dict[str, _Factory] = {
    "token_drop": lambda statistics: text.drop_tokens(statistics.fill[0]),
    "swap": lambda _: text.swap_neighbors(),
    "omission": lambda statistics: text.omit_tokens(statistics.fill[0]),
    "sticky_keys": lambda _: text.repeat_tokens(),
}
CORRUPTIONS_OF_KIND: Mapping[str, Mapping[str, _Factory]] = {
    "image": {
        "noise": image.add_pixel_noise,
        "salt_and_pepper": image.add_salt_and_pepper,
        "blur": image.blur_image,
        "contrast": image.reduce_contrast,
        "occlusion": image.occlude_rectangle,
        "rotation": image.rotate_image,
        "crop": image.crop_image,
        "inversion": image.invert_intensity,
    },
    "bytes": {"typo": lambda _: text.mistype_letters(), **_TOKENS},
    "tokens": _TOKENS,
    "series": {
        "noise": series.add_noise_at_snr,
        "step_drop": series.drop_steps,
        "block_drop": series.drop_block,
        "clipping": series.clip_amplitude,
        "shift": series.shift_steps,
    },
    "vector": {
        "noise": vector.add_feature_noise,
        "feature_drop": vector.drop_features,
        "feature_swap": vector.swap_features,
    },
    "categories": {
        "feature_swap": vector.swap_features,
        "feature_drop": vector.forget_categories,
    },
    "parts": {},
}
"""{kind: {corruption: factory}}; the first one stands for the kind when all modalities are
corrupted together. Every kind can also be missing."""


def infer_corruption_kind(modality: Modality, dtype: Any) -> str:
    """Infers the kind of a modality's input: a key of `CORRUPTIONS_OF_KIND`.

    Spectrograms without a time axis of their own, [frames bands 1], look like images.

    Example:
      >>> infer_corruption_kind(Modality((28, 28, 1)), "uint8")
      'image'
      >>> infer_corruption_kind(Modality((9, 4), sequence=True), "float32")
      'series'
    """
    if modality.parts:
        return "parts"
    is_pixels = np.dtype(dtype) in (np.uint8, np.uint16)
    if np.issubdtype(np.dtype(dtype), np.integer) and not is_pixels:
        if not modality.sequence:
            return "categories" if modality.list_unknown_tokens() else "vector"
        if len(modality.shape) == 1:
            return "bytes" if len(modality.vocabulary) == 257 else "tokens"
    if modality.sequence:
        return "series"
    is_image = len(modality.shape) == 3 and modality.shape[2] in (1, 3, 4)
    return "image" if is_image else "vector"


def make_corruptions(
    kind: str, statistics: InputStatistics, names: Collection[str] | None = None
) -> dict[str, Corruption]:
    """Makes the corruptions of a kind of input.

    Args:
      kind: a key of `CORRUPTIONS_OF_KIND`.
      statistics: the units of the modality.
      names: the corruptions to make; those of other kinds are left out. None: all.

    Example:
      >>> values = np.zeros((2, 3), np.float32)
      >>> from mmjax.modalities.robustness.input_statistics import measure_values
      >>> list(make_corruptions("vector", measure_values(values, Modality((3,)))))
      ['noise', 'feature_drop', 'feature_swap']
    """
    check_kind(kind)
    factories = CORRUPTIONS_OF_KIND[kind]
    return {n: make(statistics) for n, make in factories.items() if names is None or n in names}


def check_kind(kind: str) -> None:
    """Refuses an unknown kind of input.

    Raises:
      ValueError: naming the known ones.
    """
    if kind not in CORRUPTIONS_OF_KIND:
        raise ValueError(f"kind is {kind!r}; it must be one of {list(CORRUPTIONS_OF_KIND)}.")


def check_corruption_names(names: Collection[str]) -> None:
    """Refuses names of corruptions that no kind of input has.

    Raises:
      ValueError: naming the known ones.
    """
    known = sorted({MISSING, *(n for table in CORRUPTIONS_OF_KIND.values() for n in table)})
    for name in names:
        if name not in known:
            raise ValueError(f"corruption is {name!r}; it must be one of {known}.")
