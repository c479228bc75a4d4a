"""A cache of the arrays of a prepared data set: one NumPy file beside its records.

Reading the file takes most of a second less than importing TensorFlow Datasets and reading the
records.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.config import trust
from mmjax.config.errors import ConfigError
from mmjax.data.builtin.generation_config import GenerationConfig
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.arrays.npz import read_npz

_ARRAYS_FILE = "arrays.npz"
_INFO_FILE = "dataset_info.json"  # TFDS writes it last, so that a folder without it is incomplete

Example = dict[str, Any]


def load_or_build_arrays(
    recipe: GenerationConfig,
    data_dir: str | os.PathLike[str] | None,
    read: Callable[[], dict[str, Example]],
) -> dict[str, Example]:
    """Returns {split: arrays} from the file that the first reading wrote, or from the records.

    The file is about as large as the records. A damaged file is written again. If none can be
    written, the records are read every time.

    Args:
      recipe: the settings that the data set is generated from.
      data_dir: folder of TFDS data sets; None is TFDS's default.
      read: reads the records, and generates them first if necessary. Features may be nested; one is
        an array, or a list of arrays that differ in the length of their first axis.

    Raises:
      ConfigError: if the data set is not there, and a stored configuration may not generate it.
    """
    folder = _find_arrays_folder(recipe, data_dir)
    with contextlib.suppress(OSError, ValueError, KeyError):
        if (folder / _INFO_FILE).exists():
            # A missing or damaged cache is written anew below.
            return _read_arrays(folder / _ARRAYS_FILE)
    if not (folder / _INFO_FILE).exists():
        trust.check_may_prepare_data(recipe.dataset, folder)
    arrays = read()
    with contextlib.suppress(OSError):
        # A full or read-only disk must not stop a run: the cache only saves time.
        if (folder / _INFO_FILE).exists() and trust.may_prepare_data():
            _write_arrays(folder / _ARRAYS_FILE, arrays)
    return arrays


def find_data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns the folder of TFDS data sets; None is TFDS's default.

    Raises:
      ConfigError: if it lies in a home directory that does not exist.
    """
    default = os.environ.get("TFDS_DATA_DIR", Path("~", "tensorflow_datasets"))
    folder = Path(os.path.expanduser(data_dir or default))
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise ConfigError(
            f"the folder for data sets, {folder}, lies in a home that does not exist; choose "
            "another folder by --data-dir, data_dir=... or TFDS_DATA_DIR."
        )
    return folder


@contextlib.contextmanager
def lock_data_folder(folder: Path, work: str) -> Iterator[None]:
    """Locks a folder of data sets while the block prepares one in it.

    Args:
      folder: the folder.
      work: what is done there, for the message of other processes, which wait.

    Raises:
      OSError: if the folder cannot be written to; the message says how to choose another one.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock_file(folder / ".lock", work))
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{folder} cannot be written to ({os.strerror(error.errno or 0)}); choose another "
                "folder for data sets by --data-dir, data_dir=... or TFDS_DATA_DIR",
            ) from None
        yield


def _find_arrays_folder(recipe: GenerationConfig, data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns the folder in which TFDS stores the data set, without importing TFDS."""
    return find_data_folder(data_dir) / recipe.dataset / recipe.name / recipe.version


def _write_arrays(path: Path, splits: dict[str, Example]) -> None:
    """Writes the arrays of all splits into one file."""
    arrays = {}
    for name, feature in flatten_features(splits).items():
        if isinstance(feature, list):
            # Examples of different lengths are stored one after the other, with the lengths to
            # split them.
            arrays[f"lengths/{name}"] = np.array(list(map(len, feature)))
            feature = np.concatenate(feature)
        arrays[f"arrays/{name}"] = feature
    with files.replace_atomically(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_arrays(path: Path) -> dict[str, Example]:
    """Reads the arrays of all splits."""
    # The arrays are not compressed, so that the file bounds their size; the limit counts empty
    # arrays as more than they take in the file.
    stored = read_npz(path, max_bytes=max(MAX_BYTES, path.stat().st_size))
    features = {}
    for key, array in stored.items():
        kind, name = key.split("/", 1)
        if kind == "arrays":
            lengths = stored.get(f"lengths/{name}")
            features[name] = array if lengths is None else _split_rows(array, lengths)
    return nest_features(features)


def _split_rows(array: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Splits an array into parts of these lengths; the last one is what remains."""
    # For thousands of parts, `np.split` takes many times as long as these slices.
    bounds = [0, *np.cumsum(lengths[:-1]).tolist(), len(array)]
    return [array[start:end] for start, end in itertools.pairwise(bounds)]


def flatten_features(tree: Example, prefix: str = "") -> dict[str, Any]:
    """Flattens nested features to one level, with names as TFDS writes them.

    Example:
      >>> flatten_features({"a": {"b": 1}})
      {'a/b': 1}
    """
    features: dict[str, Any] = {}
    for name, part in tree.items():
        is_inner = isinstance(part, dict)
        features |= (
            flatten_features(part, f"{prefix}{name}/") if is_inner else {f"{prefix}{name}": part}
        )
    return features


def nest_features(features: dict[str, Any]) -> Example:
    """Nests features by their names; the inverse of `flatten_features`.

    Example:
      >>> nest_features({"a/b": 1})
      {'a': {'b': 1}}
    """
    tree: Example = {}
    for name, array in features.items():
        *path, last = name.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array
    return tree
