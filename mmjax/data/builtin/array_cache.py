"""The arrays of a prepared data set, kept beside its records in one file that NumPy reads.

Importing TensorFlow Datasets and reading the records takes most of a second, which a run that has
the file saves.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import files
from mmjax.config import trust
from mmjax.config.errors import ConfigError
from mmjax.data.builtin.generation_config import Recipe
from mmjax.data.limits import MAX_BYTES
from mmjax.data.load.npz import read_npz

FILE = "arrays.npz"
INFO = "dataset_info.json"  # what TFDS writes last, so that a folder without it is not whole

Example = dict[str, Any]


def kept(
    recipe: Recipe, data_dir: str | os.PathLike[str] | None, read: Callable[[], dict[str, Example]]
) -> dict[str, Example]:
    """{split: its arrays}: from the file that the first reading left, or else from the records.

    The file is about as large as the records. A damaged one is written again; where none can be
    written, the records are read.

    Args:
      recipe: what makes the data set.
      data_dir: folder of TFDS data sets; None is TFDS's own default.
      read: reads the records, which it makes if need be. Features may be nested; one is an array,
        or a list of arrays that differ in the length of their first axis.

    Raises:
      ConfigError: the data set is not there, and a stored configuration may not make it.
    """
    folder = _folder(recipe, data_dir)
    with contextlib.suppress(OSError, ValueError, KeyError):
        if (folder / INFO).exists():
            return _read(folder / FILE)
    if not (folder / INFO).exists():
        trust.check_may_write(recipe.dataset, folder)
    found = read()
    with contextlib.suppress(OSError):
        if (folder / INFO).exists() and trust.may_write():
            _write(folder / FILE, found)
    return found


def find_data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """Returns the folder of TFDS data sets; None is TFDS's own default.

    Raises:
      ConfigError: it lies in the user's home, and the user has none.
    """
    default = os.environ.get("TFDS_DATA_DIR", Path("~", "tensorflow_datasets"))
    folder = Path(os.path.expanduser(data_dir or default))
    if folder.parts[:1] and folder.parts[0].startswith("~"):
        raise ConfigError(
            f"the folder for data sets, {folder}, lies in a home that does not exist; choose "
            "another one by --data-dir, data_dir=... or TFDS_DATA_DIR."
        )
    return folder


@contextlib.contextmanager
def lock_data_folder(folder: Path, work: str) -> Iterator[None]:
    """Makes a folder of data sets this process's own while the block prepares one in it.

    Args:
      folder: the folder.
      work: what is done there, for other processes, which wait.

    Raises:
      OSError: the folder cannot be written to; the message says how to choose another one.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(folder / ".lock", work))
        except OSError as error:
            raise type(error)(
                error.errno,
                f"{folder} cannot be written to ({os.strerror(error.errno or 0)}); choose another "
                "folder for data sets by --data-dir, data_dir=... or TFDS_DATA_DIR",
            ) from None
        yield


def _folder(recipe: Recipe, data_dir: str | os.PathLike[str] | None) -> Path:
    """Where TFDS stores the data set, found without TFDS."""
    return find_data_folder(data_dir) / recipe.dataset / recipe.name / recipe.version


def _write(path: Path, splits: dict[str, Example]) -> None:
    """Writes the arrays of all splits into one file."""
    arrays = {}
    for name, feature in flat(splits).items():
        if isinstance(feature, list):
            arrays[f"lengths/{name}"] = np.array([len(one) for one in feature])
            feature = np.concatenate(feature)
        arrays[f"arrays/{name}"] = feature
    with files.replacing(path) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path) -> dict[str, Example]:
    # The arrays are stored as they are. Empty ones count for more than they take in the file.
    stored = read_npz(path, max_bytes=max(MAX_BYTES, path.stat().st_size))
    found = {}
    for key, array in stored.items():
        kind, name = key.split("/", 1)
        if kind == "arrays":
            lengths = stored.get(f"lengths/{name}")
            found[name] = array if lengths is None else np.split(array, np.cumsum(lengths[:-1]))
    return nested(found)


def flat(tree: Example, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a/b": 1}, which is how TFDS names features."""
    found: dict[str, Any] = {}
    for name, part in tree.items():
        inner = isinstance(part, dict)
        found |= flat(part, f"{prefix}{name}/") if inner else {f"{prefix}{name}": part}
    return found


def nested(flat: dict[str, Any]) -> Example:
    """{"a/b": 1} to {"a": {"b": 1}}."""
    tree: Example = {}
    for name, array in flat.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return tree
