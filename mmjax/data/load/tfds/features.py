"""The feature tree of a TFDS data set: finding features by path and selecting some of them."""

from typing import Any

import tensorflow_datasets as tfds


def get_feature(features: Any, path: str) -> Any:
    """Returns the feature of a path.

    Raises:
      ValueError: if there is none, or several.
    """
    node = features
    for part in path.split("/"):
        while isinstance(node, tfds.features.Sequence):
            node = node.feature
        if not isinstance(node, tfds.features.FeaturesDict) or part not in node:
            raise ValueError(
                f"feature {path!r} does not exist; the features are "
                f"{_format_feature_names(features)}."
            )
        node = node[part]
    if isinstance(node, tfds.features.FeaturesDict):
        raise ValueError(
            f"{path!r} holds several features: {_format_feature_names(node, f'{path}/')}."
        )
    return node


def is_inside_sequence(features: Any, path: str) -> bool:
    """Checks whether a path leads through a sequence of several features."""
    node = features
    for part in path.split("/"):
        if isinstance(node, tfds.features.Sequence):
            return True
        node = node[part]
    return False


def _format_feature_names(features: Any, prefix: str = "") -> str:
    names = []
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, tfds.features.Sequence) else feature
        if isinstance(inner, tfds.features.FeaturesDict):
            names.append(_format_feature_names(inner, f"{prefix}{name}/"))
        else:
            names.append(prefix + name)
    return ", ".join(names)


def select_features(features: Any, paths: list[str]) -> Any:
    """Selects the features of those paths, so that no others are decoded.

    Raises:
      ValueError: if a path leads to none, or to several.
    """
    tree: dict[str, Any] = {}
    for path in paths:
        get_feature(features, path)
        *outer, last = path.split("/")
        node = tree
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = True
    return _select_subtree(features, tree)


def _select_subtree(feature: Any, tree: Any) -> Any:
    """Replaces `tfds.decode.PartialDecoding`, which needs TensorFlow."""
    if tree is True:
        return feature
    if isinstance(feature, tfds.features.Sequence):
        return tfds.features.Sequence(_select_subtree(feature.feature, tree))
    return tfds.features.FeaturesDict({k: _select_subtree(feature[k], t) for k, t in tree.items()})
