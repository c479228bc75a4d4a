"""Arrays that weight files hold, and readers of trees: Orbax checkpoints and mmjax's own runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from mmjax import files
from mmjax.pretrained.lora import is_lora_factor, list_update_keys, merge_lora

Keys = tuple[str, ...]


class StoredArray(NamedTuple):
    """An array in a weight file.

    Attributes:
      name: its name; the keys of a tree are joined by slashes.
      collection: its collection of Flax variables; "params" in files that have no collections.
      shape: its shape.
      dtype: name of its type, such as "float32".
    """

    name: str
    collection: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def key(self) -> tuple[str, str]:
        """Collection and name, which identify the array in its file."""
        return self.collection, self.name


class StoredArrays(NamedTuple):
    """The arrays of a weight file.

    Attributes:
      arrays: all of them.
      read: reads some of them, one after the other: arrays -> pairs (array, its values).
    """

    arrays: Sequence[StoredArray]
    read: Callable[[Sequence[StoredArray]], Iterator[tuple[StoredArray, np.ndarray]]]


def flatten_keys(tree: Any) -> dict[Keys, Any]:
    """Returns {keys: leaf} of a tree.

    Example:
      >>> flatten_keys({"a": {"b": 1}, "c": [2]})
      {('a', 'b'): 1, ('c', '0'): 2}
    """
    return {_format_keys(place): leaf for place, leaf in jax.tree.leaves_with_path(tree)}


def list_tree_arrays(
    leaves: Mapping[Keys, Any], load: Callable[[Sequence[Keys]], Mapping[Keys, Any]] | None = None
) -> StoredArrays:
    """Lists the arrays of a tree, which may be one of collections, as `init` returns it.

    Args:
      leaves: {keys: array, or an object with its shape and type}.
      load: reads the arrays with these keys; None if the leaves are arrays.
    """
    has_collections = any(len(keys) > 1 and keys[0] == "params" for keys in leaves)
    places: dict[StoredArray, Keys] = {}
    for keys, leaf in leaves.items():
        collection, *rest = keys if has_collections else ("params", *keys)
        array = StoredArray("/".join(rest), collection, tuple(leaf.shape), str(leaf.dtype))
        places[array] = keys

    def read(arrays: Sequence[StoredArray]) -> Iterator[tuple[StoredArray, np.ndarray]]:
        loaded = leaves if load is None else load([places[array] for array in arrays])
        for array in arrays:
            yield array, np.asarray(loaded[places[array]])

    return StoredArrays(list(places), read)


def list_orbax_arrays(path: Path) -> StoredArrays:
    """Lists the arrays of an Orbax checkpoint."""
    metadata = _read_orbax_metadata(path)
    return list_tree_arrays(flatten_keys(metadata), lambda keys: _load_orbax(path, metadata, keys))


def list_run_arrays(path: Path, seed: int | None = None) -> StoredArrays:
    """Lists the best parameters and variables of one seed of an arm of a run.

    Args:
      path: the arm's directory.
      seed: the seed; None is the first.
    """
    checkpoint, replica = find_newest_checkpoint(path), _find_replica(path, seed)
    metadata = _read_orbax_metadata(checkpoint)
    places: dict[Keys, Keys] = {}
    leaves: dict[Keys, Any] = {}
    for keys, leaf in flatten_keys(metadata).items():
        if keys[0] not in ("best_params", "best_variables"):
            continue
        short = ("params", *keys[1:]) if keys[0] == "best_params" else keys[1:]
        # The first axis is that of seeds.
        places[short], leaves[short] = keys, jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    frozen = _find_frozen(path)
    frozen_metadata = _read_orbax_metadata(frozen) if frozen else {}
    frozen_leaves = flatten_keys(frozen_metadata)
    every = leaves | frozen_leaves

    def load(chosen: Sequence[Keys]) -> dict[Keys, Any]:
        wanted = [k for keys in chosen for k in list_update_keys(keys) if k in every]
        loaded = _load_orbax(checkpoint, metadata, [places[k] for k in wanted if k in places])
        arrays = {k: loaded[places[k]][replica] for k in wanted if k in places}
        if frozen:
            constant = [k for k in wanted if k in frozen_leaves]
            arrays |= _load_orbax(frozen, frozen_metadata, constant)
        return flatten_keys(merge_lora(unflatten_dict(arrays)))

    return list_tree_arrays({k: x for k, x in every.items() if not is_lora_factor(k)}, load)


def _find_frozen(path: Path) -> Path | None:
    """Finds the frozen variables of an arm, which are stored once."""
    frozen = path / "frozen" / "0"
    return frozen if frozen.is_dir() else None


def find_newest_checkpoint(path: Path) -> Path:
    """Finds the newest checkpoint of an arm's directory.

    Raises:
      ValueError: if there is none.
    """
    steps = [p for p in (path / "checkpoints").iterdir() if p.name.isdecimal()]
    if not steps:
        raise ValueError(f"{path} has no checkpoint; train first, or name another run.")
    return max(steps, key=lambda p: int(p.name))


def _find_replica(path: Path, seed: int | None) -> int:
    """Returns the index of a seed in the checkpoint of an arm."""
    if seed is None:
        return 0
    result, facts = path / "result.json", path.parent / "run.json"
    if result.is_file():
        seeds = [int(known) for known in files.read_json(result)["seeds"]]
    elif facts.is_file():
        seeds = list(files.read_json(facts)["seeds"])
    else:
        raise ValueError(f"{path} does not say which seeds it has; leave out seed.")
    if seed not in seeds:
        raise ValueError(f"The run {path} has no seed {seed}, only {seeds}.")
    return seeds.index(seed)


def _read_orbax_metadata(path: Path) -> Any:
    from orbax.checkpoint import v1 as ocp

    try:
        return ocp.metadata(path.absolute()).metadata
    except Exception as error:  # Orbax and TensorStore raise errors of many kinds
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path} holds no weights that can be read: neither model.safetensors, nor parts of it "
            f"with an index, nor the arm of a run, nor a tree of Orbax ({reason})."
        ) from None


def _load_orbax(path: Path, metadata: Any, chosen: Sequence[Keys]) -> dict[Keys, Any]:
    """Reads some arrays of an Orbax tree."""
    from orbax.checkpoint import v1 as ocp

    wanted = set(chosen)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def make_shape(place: tuple[Any, ...], leaf: Any) -> Any:
        if _format_keys(place) not in wanted:
            return ocp.PLACEHOLDER
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    try:
        tree = ocp.load(path.absolute(), jax.tree.map_with_path(make_shape, metadata))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"{path} cannot be read: {reason}.") from None
    return flatten_keys(tree)


def _format_keys(place: tuple[Any, ...]) -> Keys:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in place)
