"""The tree of a TFDS data set's features: where a path leads, and which of them are wanted."""

from typing import Any

import tensorflow_datasets as tfds


def at(features: Any, path: str) -> Any:
    """The feature of a path.

    Raises:
      ValueError: if there is none, or several.
    """
    place = features
    for part in path.split("/"):
        while isinstance(place, tfds.features.Sequence):
            place = place.feature
        if not isinstance(place, tfds.features.FeaturesDict) or part not in place:
            raise ValueError(f"there is no feature {path!r}; the features are {_names(features)}.")
        place = place[part]
    if isinstance(place, tfds.features.FeaturesDict):
        raise ValueError(f"{path!r} holds several features: {_names(place, f'{path}/')}.")
    return place


def inside_sequence(features: Any, path: str) -> bool:
    """Whether a path leads through a sequence of several features."""
    place = features
    for part in path.split("/"):
        if isinstance(place, tfds.features.Sequence):
            return True
        place = place[part]
    return False


def _names(features: Any, prefix: str = "") -> str:
    found = []
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        if isinstance(inner, tfds.features.FeaturesDict):
            found.append(_names(inner, f"{prefix}{name}/"))
        else:
            found.append(prefix + name)
    return ", ".join(found)


def needed(features: Any, paths: list[str]) -> Any:
    """The features of those paths alone, so that no other is decoded."""
    wanted: dict[str, Any] = {}
    for path in paths:
        *outer, last = path.split("/")
        place = wanted
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = True
    return _subset(features, wanted)


def _subset(feature: Any, wanted: Any) -> Any:
    """Does what `tfds.decode.PartialDecoding` does with TensorFlow only."""
    if wanted is True:
        return feature
    if isinstance(feature, tfds.features.Sequence):
        return tfds.features.Sequence(_subset(feature.feature, wanted))
    return tfds.features.FeaturesDict({k: _subset(feature[k], w) for k, w in wanted.items()})
