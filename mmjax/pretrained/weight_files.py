"""Readers of weight files: names, shapes and types first, then one array at a time.

No reader unpickles, and none allocates memory for an array before its declared size was compared
with the file's. The names of arrays are keys of a dictionary and never become paths.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mmjax import files
from mmjax.data.limits import LimitError
from mmjax.data.load.arrays.npz import read_npz
from mmjax.pretrained.stored_trees import (
    StoredArray,
    StoredArrays,
    find_newest_checkpoint,
    flatten_keys,
    list_orbax_arrays,
    list_run_arrays,
    list_tree_arrays,
)

_PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
_CONVERSION = (
    'python -c "import sys, torch; from safetensors.torch import save_file; save_file({k: '
    "v.clone().contiguous() for k, v in torch.load(sys.argv[1], map_location='cpu', "
    'weights_only=True).items()}, sys.argv[2])"'
)
_SAFETENSORS = "model.safetensors"
_INDEX = _SAFETENSORS + ".index.json"
_MAX_NAME_LENGTH = 1000
_MAX_INDEX_BYTES = 1 << 28
_DTYPES = {
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "BOOL": "bool",
    **{f"{k}{bits}": f"{v}{bits}" for k, v in (("I", "int"), ("U", "uint")) for bits in (8, 16)},
    **{f"{k}{bits}": f"{v}{bits}" for k, v in (("I", "int"), ("U", "uint")) for bits in (32, 64)},
}


def check_weight_path(path: Path) -> None:
    """Refuses a file of pickles, which can run code when it is opened.

    Raises:
      ValueError: naming the file, and the command that converts it.
    """
    if path.suffix.lower() in _PICKLE_SUFFIXES:
        raise ValueError(
            f"{path} is a pickle, which can run code when it is opened. Convert it once with "
            f"PyTorch: {_CONVERSION} {path} {path.with_suffix('.safetensors')}"
        )


def list_stored_arrays(path: Path, seed: int | None = None) -> StoredArrays:
    """Lists the arrays of a weight file without reading them, if its format allows.

    Args:
      path: a file .safetensors, .npz or .msgpack (Flax); a folder with `model.safetensors`, or with
        the index of its parts; an Orbax folder; the directory of one arm of a run, of which the
        best parameters are taken.
      seed: which seed of a run; None is the first.

    Raises:
      ValueError: naming the file, if it is damaged or of an unknown kind.
      FileNotFoundError: if there is no such file.
    """
    check_weight_path(path)
    if not path.exists():
        raise FileNotFoundError(f"File {path} does not exist.")
    if seed is not None and not _is_run(path):
        raise ValueError(f"{path} is not the directory of an arm of a run, so it has no seeds.")
    stored = _choose_reader(path, seed)(path)
    seen = set()
    for array in stored.arrays:
        if len(array.name) > _MAX_NAME_LENGTH or not array.name.isprintable():
            raise ValueError(f"{path} has an array with the name {array.name[:80]!r}.")
        if array.key in seen:
            raise ValueError(f"{path} has two arrays with the name {array.name!r}.")
        seen.add(array.key)
    if not seen:
        raise ValueError(f"{path} has no arrays.")
    return stored


def list_weight_files(path: Path) -> list[Path]:
    """Lists the files that `list_stored_arrays` reads, in a fixed order."""
    if path.is_file():
        return [path]
    if (path / _SAFETENSORS).is_file():
        return [path / _SAFETENSORS]
    if (path / _INDEX).is_file():
        return [path / _INDEX, *sorted(set(_read_index(path / _INDEX).values()))]
    roots = [find_newest_checkpoint(path), path / "frozen"] if _is_run(path) else [path]
    return sorted(p for root in roots for p in root.rglob("*") if p.is_file())


def compute_weights_digest(path: Path) -> str:
    """Computes the SHA-256 of a weight file; of a folder, that of its files' names and digests.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = Path(folder, "x.npz")
      ...     np.savez(path, x=np.zeros(1))
      ...     len(compute_weights_digest(path))
      64
    """
    if not path.exists():
        raise FileNotFoundError(f"File {path} does not exist.")
    lines = []
    for part in list_weight_files(path):
        state = part.stat()
        # A replaced or rewritten file differs in one of these, so that its digest is not reused.
        key = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        lines.append(f"{_compute_sha256_once(part, key)} {part.relative_to(path).as_posix()}\n")
    if path.is_file():
        return lines[0].split()[0]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _compute_sha256_once(path: Path, state: tuple[int, ...]) -> str:
    # Commands and `fit` both ask, several arms often share a file, and files are large.
    del state
    return files.compute_sha256(path)


def _is_run(path: Path) -> bool:
    return (path / "checkpoints").is_dir()


def _choose_reader(path: Path, seed: int | None) -> Callable[[Path], StoredArrays]:
    readers = {".safetensors": _list_safetensors, ".npz": _list_npz, ".msgpack": _list_msgpack}
    if path.is_file():
        if path.suffix not in readers:
            raise ValueError(
                f"{path} is not a weight file: its name must end in one of {', '.join(readers)}."
            )
        return readers[path.suffix]
    if (path / _SAFETENSORS).is_file():
        return lambda path: _list_safetensors(path / _SAFETENSORS)
    if (path / _INDEX).is_file():
        return _list_sharded
    if _is_run(path):
        return functools.partial(list_run_arrays, seed=seed)
    for pickle in sorted(p for p in path.iterdir() if p.suffix.lower() in _PICKLE_SUFFIXES):
        check_weight_path(pickle)
    return list_orbax_arrays


def _list_safetensors(path: Path) -> StoredArrays:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ImportError(
            f"Reading {path} needs safetensors; install it with pip install 'mmjax[pretrained]'."
        ) from None

    def read(arrays: Sequence[StoredArray]) -> Iterator[tuple[StoredArray, np.ndarray]]:
        with safe_open(path, "np") as file:
            for array in arrays:
                yield array, file.get_tensor(array.name)

    arrays = []
    try:
        with safe_open(path, "np") as file:
            for name in list(file.keys()):
                part = file.get_slice(name)
                dtype = str(part.get_dtype())
                shape = tuple(part.get_shape())
                arrays.append(StoredArray(name, "params", shape, _DTYPES.get(dtype, dtype)))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    return StoredArrays(arrays, read)


def _list_sharded(path: Path) -> StoredArrays:
    """Lists the arrays of several safetensors files with an index, as Hugging Face writes them."""
    index = path / _INDEX
    places = _read_index(index)
    parts = {part: _list_safetensors(part) for part in sorted(set(places.values()))}
    homes = {array: part for part, stored in parts.items() for array in stored.arrays}
    for array, part in homes.items():
        if places.get(array.name) != part:
            raise ValueError(f"{part} has the array {array.name!r}, but {index} does not say so.")
    if lost := sorted(set(places) - {array.name for array in homes}):
        raise ValueError(f"{places[lost[0]]} lacks the array {lost[0]!r}, which {_INDEX} names.")

    def read(arrays: Sequence[StoredArray]) -> Iterator[tuple[StoredArray, np.ndarray]]:
        for part, stored in parts.items():
            yield from stored.read([array for array in arrays if homes[array] == part])

    return StoredArrays(list(homes), read)


def _read_index(path: Path) -> dict[str, Path]:
    """Reads {name of an array: file that holds it} from an index.

    Raises:
      ValueError: if it is damaged, or names a file that is absent or elsewhere.
    """
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError(f"{path} is larger than any index.")
    try:
        places = json.loads(path.read_text("utf-8"))["weight_map"]
        if not all(isinstance(part, str) for part in places.values()):
            raise TypeError("weight_map")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: it has no weight_map of names to files.") from None
    for part in set(places.values()):
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", part):
            raise ValueError(f"{path} names the file {part!r}; it must be a file of this folder.")
        if not (path.parent / part).is_file():
            raise ValueError(f"{path} names the file {part}, which is missing.")
    return {name: path.parent / part for name, part in places.items()}


def _list_npz(path: Path) -> StoredArrays:
    try:
        arrays = read_npz(path)
    except LimitError:
        raise ValueError(
            f"{path} declares more than an .npz file of weights may hold; save it as safetensors."
        ) from None
    return list_tree_arrays({tuple(name.split("/")): array for name, array in arrays.items()})


def _list_msgpack(path: Path) -> StoredArrays:
    from flax import serialization

    try:
        leaves = flatten_keys(serialization.msgpack_restore(path.read_bytes()))
        if not all(isinstance(leaf, np.ndarray) for leaf in leaves.values()):
            raise ValueError("it has values that are not arrays")
    except Exception as error:  # msgpack raises errors of many kinds
        raise ValueError(f"{path} is not a tree of arrays in Flax's msgpack: {error}.") from None
    return list_tree_arrays(leaves)
