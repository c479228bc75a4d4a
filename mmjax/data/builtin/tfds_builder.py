"""TFDS data sets that mmjax generates: prepared once, atomically, with reproducible bytes."""

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import writer
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from mmjax.config import trust
from mmjax.data.builtin.array_cache import (
    Example,
    find_data_folder,
    flatten_features,
    lock_data_folder,
    nest_features,
)
from mmjax.data.builtin.generation_config import GenerationConfig
from mmjax.data.builtin.originals.download import OriginalFiles
from mmjax.data.progress_bars import track_progress
from mmjax.printing.console import print_text

_CHUNK_RECORDS = 1024  # records in memory while a split is read

_BuilderT = TypeVar("_BuilderT", bound="Builder")


@dataclasses.dataclass(eq=False, kw_only=True)
class _TfdsConfig(tfds.core.BuilderConfig):
    """Generation settings in the form that TFDS needs."""

    recipe: GenerationConfig


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The base of mmjax's builders, with a fixed order of writing and informative progress bars.

    Attributes:
      originals: the places of original files.
    """

    # To find them, TFDS would need a package that it does not require, and a builder in a package.
    code_path = Path(__file__)
    pkg_dir_path = epath.Path(__file__).parent
    originals: OriginalFiles

    @property
    def recipe(self) -> Any:
        """Returns the settings that the data set is generated from."""
        return self.builder_config.recipe

    def numbered(
        self, split: str, examples: Iterable[Example], total: int
    ) -> Iterator[tuple[int, Example]]:
        """Yields a split's examples with their numbers, and shows a progress bar."""
        yield from track_progress(enumerate(examples), f"Making {self.name}: {split}", total)

    def _example_writer(self) -> "_SortedWriter":
        return _SortedWriter(self.info.file_format)

    def _log_download_bytes(self) -> None:
        """Prints the data set's name instead of TFDS's line about a download of unknown size."""
        print_text(f"Preparing {self.info.full_name} in {self.data_dir}", file=sys.stderr)

    def _log_download_done(self) -> None:
        """Prints nothing, since there may have been no download."""


class _SortedWriter(writer.ExampleWriter):
    """A writer that fixes the order of an example's features, which in TFDS varies by process."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, _sort_features(example)) for key, example in examples))


def _sort_features(example: bytes) -> bytes:
    # Maps of protocol buffers have no order; sorted keys make the files reproducible byte for byte.
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


def load_or_prepare_arrays(
    kind: type[_BuilderT],
    recipe: GenerationConfig,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> dict[str, Example]:
    """Returns {split: arrays} of a data set, which is prepared if necessary."""
    config = _TfdsConfig(name=recipe.name, recipe=recipe)
    builder = prepare_dataset(kind, config, data_dir=data_dir, manual_dir=manual_dir)
    return {split: read_arrays(builder, split) for split in recipe.sizes}


def prepare_dataset(
    kind: type[_BuilderT],
    config: tfds.core.BuilderConfig,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> _BuilderT:
    """Returns the builder of a data set; generates the files if they do not exist.

    TFDS writes into a temporary folder and renames it when it is complete, so that an interrupted
    preparation leaves nothing that would be read; its leftovers are removed. If two processes need
    the same data set, one prepares it and the other waits.

    Args:
      kind: the builder's class.
      config: its configuration; each name is stored in its own folder.
      data_dir: folder of TFDS data sets; None is TFDS's default.
      manual_dir: folder with the original files; None downloads them.
    """
    find_data_folder(data_dir)  # raises if there is none, which TFDS does not check
    with _silence_tfds():
        builder = _make_builder(kind, config, data_dir)
        if builder.is_prepared():
            return builder
    folder = Path(builder.data_dir).parent
    trust.check_may_prepare_data(builder.name, folder)
    with lock_data_folder(folder, f"it prepares {builder.info.full_name}"):
        # Under the lock nobody else prepares here: incomplete folders are those of killed
        # processes.
        _remove_leftovers(folder)
        with _silence_tfds():
            builder = _make_builder(kind, config, data_dir)
        downloads = Path(builder.data_dir_root) / "downloads"
        builder.originals = OriginalFiles(
            Path(manual_dir).expanduser() if manual_dir else None, downloads
        )
        with _hide_tfds_bars():
            builder.download_and_prepare()
    return builder


def _make_builder(
    kind: type[_BuilderT], config: tfds.core.BuilderConfig, data_dir: Any
) -> _BuilderT:
    return kind(config=config, data_dir=data_dir, file_format="array_record")


def _remove_leftovers(folder: Path) -> None:
    """Removes what interrupted preparations left; a running one would hold the lock."""
    for leftover in folder.glob("incomplete.*"):
        shutil.rmtree(leftover)


@contextlib.contextmanager
def _silence_tfds() -> Iterator[None]:
    """Silences TFDS's warnings of custom configurations and of folders that are still empty."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _hide_tfds_bars() -> Iterator[None]:
    """Hides TFDS's bars, which do not know the number of examples, unlike those of `numbered`."""
    tfds.display_progress_bar(False)
    try:
        yield
    finally:
        tfds.display_progress_bar(True)


def read_arrays(builder: Builder, split: str) -> Example:
    """Reads all examples of one split: {feature: array [examples, ...]}, nested as the features.

    Every feature must be a number, or a `Tensor` of numbers; a tensor is read fast if its encoding
    is BYTES. If its first axis has no fixed length, there is a list of arrays instead. TFDS's own
    reader, which supports all features, takes ten times as long.
    """
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split, deserialize_method=raw)
    features = flatten_features(builder.info.features.get_tensor_info())
    arrays = {name: _allocate_feature(feature, len(records)) for name, feature in features.items()}
    for start in range(0, len(records), _CHUNK_RECORDS):
        rows = range(start, min(start + _CHUNK_RECORDS, len(records)))
        chunk = records.__getitems__(rows)
        examples = [tf_example_pb2.Example.FromString(record).features.feature for record in chunk]
        for name, feature in features.items():
            arrays[name][start : rows.stop] = _decode_feature([e[name] for e in examples], feature)
    return nest_features(arrays)


def _allocate_feature(feature: Any, examples: int) -> Any:
    """Allocates an array of a feature, or a list if its first axis has no fixed length."""
    if None in feature.shape:
        return [None] * examples
    return np.empty((examples, *feature.shape), feature.np_dtype)


def _decode_feature(stored: list[tf_feature_pb2.Feature], feature: Any) -> list[Any]:
    """Decodes one feature of several examples."""
    kind = stored[0].WhichOneof("kind")
    values = [getattr(example, kind).value for example in stored]
    if kind == "bytes_list":
        shape = [-1 if size is None else size for size in feature.shape]
        return [np.frombuffer(value[0], feature.np_dtype).reshape(shape) for value in values]
    if feature.shape:
        return [np.reshape(value, feature.shape) for value in values]
    return [value[0] for value in values]
