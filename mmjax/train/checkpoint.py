"""Checkpoints by Orbax: the only file that uses it.

A checkpoint is one pytree of arrays with a JSON note. Orbax writes it under a temporary name and
renames it, so that a killed run never leaves half a checkpoint. The note holds a digest: a
checkpoint that was damaged later is detected, and the one before it is used.
"""

import errno
import functools
import hashlib
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mmjax.files.disk_space import DiskFullError, is_disk_full, require_disk_space
from mmjax.train.hardware.multihost import (
    fetch_array,
    place_on_all_processes,
    to_global_arrays,
    to_local_arrays,
)
from mmjax.train.hardware.split_arrays import is_split_over_devices
from mmjax.types import Variables

_CHECKPOINTS_TO_KEEP = 2
_FROZEN = "frozen"  # directory of an arm's frozen variables


def hash_arrays(tree: Any) -> str:
    """Returns the SHA-256 of the paths, types, shapes and bytes of a tree's arrays."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        # One array at a time: a host need not hold all that its devices share.
        array = fetch_array(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


class Checkpoints:
    """Checkpoints in one directory; the newest two are kept."""

    def __init__(self, directory: Path) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # `restore` reports damage
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()

    @functools.cached_property
    def _writer(self) -> Any:
        """Writer of Orbax, opened at the first save, after `restore` has moved damaged ones."""
        from orbax.checkpoint import v1 as ocp

        return ocp.training.Checkpointer(
            self.directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(_CHECKPOINTS_TO_KEEP),
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # an older one may be damaged too
        )

    def close(self) -> None:
        """Waits until everything is written."""
        self._writer.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, the oldest first."""
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal())

    def newest(self) -> Path | None:
        """Returns the path of the newest checkpoint, if there is one."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def path(self, step: int) -> Path:
        """Returns the path of a step's checkpoint."""
        return self.directory / str(step)

    def save(self, step: int, tree: Any) -> None:
        """Writes a checkpoint atomically.

        Raises:
          DiskFullError: if the disk is full; it names the directory and the last good checkpoint.
        """
        tree = jax.tree.map(lambda x: x if is_split_over_devices(x) else jax.device_get(x), tree)
        size = sum(getattr(x, "nbytes", 0) for x in jax.tree.leaves(tree))
        hook = sys.unraisablehook
        sys.unraisablehook = functools.partial(_show_unless_loop_closed, hook)
        try:
            require_disk_space(self.directory, 2 * size)  # Orbax needs about that while it writes
            note = {"sha256": hash_arrays(tree)}
            self._writer.save(step, to_global_arrays(tree), custom_metadata=note, overwrite=True)
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise DiskFullError(
                errno.ENOSPC,
                f"The disk has no space for the checkpoint of step {step} ({size} bytes) in "
                f"{self.directory}. The last good checkpoint is {self.newest() or 'none'}. Free "
                "some space, or raise the limit of file sizes (ulimit -f), and run the same "
                "command with --resume.",
            ) from error
        sys.unraisablehook = hook  # after a failure it stays: late errors are still to come

    def restore(self, like: Any, *, set_aside: bool = True) -> Any | None:
        """Returns the newest undamaged checkpoint; None if none exists.

        Newer ones, which are damaged, are set aside with a warning that names them.

        Args:
          like: tree with the types, shapes and placement of the arrays to restore.
          set_aside: whether to move damaged ones; a run that is only read stays unchanged.

        Raises:
          ValueError: if there are checkpoints but none can be read; they are not moved, since
            `like` may be wrong instead.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                tree = self._load(step, jax.tree.map(_make_shape, like))
            except Exception as error:
                damaged[step] = _format_root_cause(error)
                continue
            for bad, cause in damaged.items():
                logging.getLogger("mmjax").warning(
                    "The checkpoint of step %d is damaged (%s); it is in %s, and the checkpoint "
                    "of step %d is used.",
                    bad,
                    cause,
                    self._set_aside(bad) if set_aside else self.path(bad),
                    step,
                )
            return tree
        if damaged:
            causes = "; ".join(f"step {step}: {cause}" for step, cause in damaged.items())
            raise ValueError(
                f"No checkpoint in {self.directory} can be read ({causes}). They are damaged or "
                "belong to another model; name the right run, or start a new one in another "
                "--workdir."
            )
        return None

    def _load(self, step: int, like: Any) -> Any:
        from orbax.checkpoint import v1 as ocp

        written = (ocp.metadata(self.path(step)).custom_metadata or {}).get("sha256", "no digest")
        shape = jax.tree.map(place_on_all_processes, like)
        context = ocp.Context()
        context.pytree.loading.partial_load = True  # the digest tells whether all arrays are there
        with context:
            loaded = ocp.load(self.path(step), _drop_empty_fields(shape))
        tree = to_local_arrays(_restore_empty_fields(loaded, like), like)
        actual = hash_arrays(tree)
        if actual != written:
            raise ValueError(f"its digest is {actual[:12]}, but {written[:12]} was written")
        return tree

    def _set_aside(self, step: int) -> Path:
        aside = self.directory.parent / f"damaged-{step}"
        if jax.process_index():
            return aside  # the first process moves it
        shutil.rmtree(aside, ignore_errors=True)
        shutil.move(self.path(step), aside)
        return aside


def _drop_empty_fields(tree: Any) -> Any:
    """Returns named tuples as dictionaries of the fields that hold arrays.

    So a state that has gained an optional field still reads the checkpoints from before.
    """
    if not hasattr(tree, "_fields"):
        return tree
    fields = zip(tree._fields, tree, strict=True)
    return {name: _drop_empty_fields(value) for name, value in fields if jax.tree.leaves(value)}


def _restore_empty_fields(fields: Any, like: Any) -> Any:
    """Inverts `_drop_empty_fields`."""
    if not hasattr(like, "_fields"):
        return fields
    values = []
    for name, value in zip(like._fields, like, strict=True):
        values.append(_restore_empty_fields(fields[name], value) if name in fields else value)
    return type(like)(*values)


def save_frozen(directory: Path, frozen: Variables) -> None:
    """Stores the frozen variables of an arm, once for all seeds and steps."""
    checkpoints = Checkpoints(directory / _FROZEN)
    checkpoints.save(0, frozen)
    checkpoints.close()


def load_frozen(directory: Path, like: Variables | None = None) -> Variables | None:
    """Loads the frozen variables of an arm; None if it has none.

    Args:
      directory: the arm's directory.
      like: types, shapes and placement; None loads them as NumPy arrays, as they are stored.

    Raises:
      ValueError: if they are damaged.
    """
    from orbax.checkpoint import v1 as ocp

    path = directory / _FROZEN
    if not (path / "0").is_dir():
        return None
    if like is not None:
        stored: Variables | None = Checkpoints(path).restore(like, set_aside=False)
        return stored
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        metadata = ocp.metadata((path / "0").absolute()).metadata
    except Exception as error:  # Orbax raises errors of many kinds
        raise ValueError(f"{path} is damaged: {_format_root_cause(error)}.") from error
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), metadata)
    loaded: Variables | None = jax.device_get(Checkpoints(path).restore(like, set_aside=False))
    return loaded


def _make_shape(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns type, shape and placement of an array, without its values."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _format_root_cause(error: BaseException) -> str:
    """Returns the first line of the message of an error's first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split("\n")[0][:200]


def _show_unless_loop_closed(show: Callable[[Any], Any], unraisable: Any) -> None:
    """Shows an error of a finalizer or a callback, unless a failed write is its cause.

    The first of a checkpoint's writes that fails closes the event loop of all of them; the others
    then cannot report their results to it.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        show(unraisable)
