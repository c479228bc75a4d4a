"""Random access to the examples of a TFDS builder."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.kept import lock_data_folder


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Stored records, decoded as they are read.

    Attributes:
      source: TFDS's data source of raw bytes.
      features: those that are wanted.
    """

    source: Sequence[bytes]
    features: Any

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.features.deserialize_example_np(self.source[row])


def prepared(
    builder: str | tfds.core.DatasetBuilder, data_dir: str | os.PathLike[str] | None
) -> tfds.core.DatasetBuilder:
    """The builder, found by its name and prepared as array records if need be."""
    if isinstance(builder, str):
        builder = tfds.builder(builder, data_dir=data_dir, try_gcs=False)
    if not builder.is_prepared():
        with lock_data_folder(Path(builder.data_dir).parent, f"it prepares {builder.name}"):
            if not builder.is_prepared():
                builder.download_and_prepare(file_format="array_record")
    return builder


def size(builder: tfds.core.DatasetBuilder, part: str) -> int:
    """Number of examples in a split by TFDS's name, such as "train[:90%]"."""
    known = builder.info.splits
    try:
        return known[part].num_examples
    except (KeyError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{builder.info.full_name} has no split {part!r}; it has {sorted(known)}: {error}"
        ) from None


def sources(
    builder: tfds.core.DatasetBuilder, splits: Mapping[str, str], features: Any
) -> dict[str, Decoding]:
    """Random access to the examples of each split."""
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        return {
            s: Decoding(builder.as_data_source(part, deserialize_method=raw), features)
            for s, part in splits.items()
        }
    except NotImplementedError:
        raise ValueError(
            f"{builder.info.full_name} in {builder.data_dir} is not stored as array records, so it "
            "cannot be read in any order; prepare it with file_format='array_record', in another "
            "data_dir or after removing that folder."
        ) from None
