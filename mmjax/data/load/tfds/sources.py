"""Random access to the examples of a TFDS builder."""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_parser, read_only_builder

from mmjax.config import ConfigError, trust
from mmjax.data.builtin.array_cache import find_data_folder, lock_data_folder
from mmjax.data.limits import MAX_PIXELS
from mmjax.data.load.image_files import check_encoded_image

_PLAIN_BUILDER_NAME = re.compile(r"\w+(/[\w.+-]*\w)?(:[\d.*]+)?")  # without namespace and arguments


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Stored records, decoded as they are read.

    Attributes:
      source: TFDS's data source of raw bytes.
      features: the features that are decoded.
      max_pixels: {path of a feature: the largest image of it that is decoded}; others have the
        default limit.
    """

    source: Sequence[bytes]
    features: Any
    max_pixels: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @functools.cached_property
    def _parser(self) -> example_parser.ExampleParserNp:
        return example_parser.ExampleParserNp(self.features.get_serialized_info())

    def __getitem__(self, row: int) -> dict[str, Any]:
        # `deserialize_example_np` in two parts: TFDS has no limit of the size of an image.
        record = self._parser.parse_example(self.source[row])
        for path, image in _iterate_images(self.features, record):
            check_encoded_image(image, path, self.max_pixels.get(path, MAX_PIXELS))
        return self.features.decode_example_np(record)


def _iterate_images(feature: Any, value: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    """Yields the path and the bytes of every encoded image of a record."""
    if value is None:  # an optional feature
        return
    if isinstance(feature, tfds.features.FeaturesDict):
        for name in value:
            yield from _iterate_images(feature[name], value[name], f"{path}/{name}".lstrip("/"))
    elif isinstance(feature, tfds.features.Sequence):  # a video, too
        yield from _iterate_images(feature.feature, value, path)
    elif isinstance(feature, tfds.features.Image) and isinstance(value, bytes):
        yield path, value
    elif isinstance(feature, tfds.features.Image):
        for part in value:
            yield from _iterate_images(feature, part, path)


def prepare_builder(
    builder: str | tfds.core.DatasetBuilder, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
    """Returns the builder, prepared as array records."""
    if not trust.may_prepare_data():
        return open_stored_builder(builder, data_dir)
    if isinstance(builder, str):
        find_data_folder(data_dir)  # raises if there is none, which TFDS does not check
        builder = tfds.builder(builder, data_dir=data_dir, try_gcs=False)
    if not builder.is_prepared():
        with lock_data_folder(Path(builder.data_dir).parent, f"it prepares {builder.name}"):
            if not builder.is_prepared():
                builder.download_and_prepare(file_format="array_record")
    return builder


def open_stored_builder(
    builder: Any, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
    """Opens prepared files, for a stored configuration, which nobody may trust.

    Nothing else is used: TFDS would download what it does not know, and import what the files
    name.

    Raises:
      ConfigError: if there are none, or they name classes outside of TFDS.
    """
    if not isinstance(builder, str) or not _PLAIN_BUILDER_NAME.fullmatch(builder):
        raise ConfigError(
            f"{str(builder)[:60]!r} is not the plain name of a TFDS data set, such as 'mnist' or "
            "'glue/sst2:2.0.0'. If you trust the stored configuration, add --allow-writes."
        )
    root = find_data_folder(data_dir)
    folder = root / re.split("[/:]", builder)[0]
    if not folder.is_dir():
        trust.check_may_prepare_data(builder, root)
    for path in folder.rglob("features.json"):
        for name in _iterate_class_names(json.loads(path.read_text())):
            if not str(name).startswith("tensorflow_datasets."):
                raise ConfigError(
                    f"{path} names {name!r}, which is not a feature of TFDS. If you trust the "
                    "stored configuration, add --allow-writes."
                )
    try:
        stored_builder = read_only_builder.builder_from_files(builder, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        stored_builder = None
    if stored_builder is None or not stored_builder.is_prepared():
        trust.check_may_prepare_data(builder, root)
    return stored_builder


def _iterate_class_names(features: Any) -> Iterator[Any]:
    """Yields the Python classes that a description of features names."""
    if isinstance(features, Mapping):
        names = ["pythonClassName", "python_class_name"] + ["type"] * ("content" in features)
        yield from (features[name] for name in names if name in features)
        features = list(features.values())
    if isinstance(features, list):
        for part in features:
            yield from _iterate_class_names(part)


def count_examples(builder: tfds.core.DatasetBuilder, part: str) -> int:
    """Counts the examples of one split, given its name in TFDS, such as "train[:90%]"."""
    splits = builder.info.splits
    try:
        return splits[part].num_examples
    except (KeyError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{builder.info.full_name} has no split {part!r}; it has {sorted(splits)}: {error}"
        ) from None


def list_shards(builder: tfds.core.DatasetBuilder, parts: Sequence[str]) -> list[Path]:
    """Lists the files of splits, given their names in TFDS."""
    paths = {str(path) for part in parts for path in builder.info.splits[part].filepaths}
    return [Path(path) for path in sorted(paths)]


def open_sources(
    builder: tfds.core.DatasetBuilder,
    splits: Mapping[str, str],
    features: Any,
    max_pixels: Mapping[str, int] | None = None,
) -> dict[str, Decoding]:
    """Opens the examples of each split for random access; see `Decoding`."""
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        return {
            s: Decoding(
                builder.as_data_source(part, deserialize_method=raw), features, max_pixels or {}
            )
            for s, part in splits.items()
        }
    except NotImplementedError:
        raise ValueError(
            f"{builder.info.full_name} in {builder.data_dir} is not stored as array records, so it "
            "cannot be read in any order; prepare it with file_format='array_record', in another "
            "data_dir or after removing that folder."
        ) from None
