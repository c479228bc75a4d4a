"""`weights`: initializes parameters from the arrays of a file, checked before they are read.

A mismatch is never silent: arrays that nothing uses, parameters that nothing fills, and shapes that
differ are listed together and refused, unless a pattern allows them.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import files
from mmjax.parameters import format_path
from mmjax.pretrained.renaming import Rename, check_rules
from mmjax.pretrained.stored_trees import StoredArrays
from mmjax.pretrained.weight_files import (
    check_weight_path,
    compute_weights_digest,
    list_stored_arrays,
)
from mmjax.pretrained.weight_plan import Source, fit_array, plan_sources

_RECORD_FILE = "weights.json"  # in the directory of an arm


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays of a file that fill parameters; `weights` makes and documents it."""

    path: str | os.PathLike[str]
    names: Sequence[Rename] = ()
    allow: Sequence[str] = ()
    prefix: str = ""
    interpolate: Mapping[str, Literal["1d", "2d"]] = dataclasses.field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        check_weight_path(Path(self.path))
        check_rules(self.names)
        for field in ("names", "allow"):
            if isinstance(getattr(self, field), str):
                raise ValueError(f"{field} is {getattr(self, field)!r}; give a tuple.")
        for pattern, kind in self.interpolate.items():
            if kind not in ("1d", "2d"):
                raise ValueError(f"interpolate[{pattern!r}] is {kind!r}; use '1d' or '2d'.")

    def apply(self, tree: Any, collection: str = "params") -> Any:
        """Returns the tree with the arrays of the file in place of its leaves.

        Args:
          tree: parameters, or the variables of another collection, such as batch statistics.
          collection: which one.

        Raises:
          ValueError: naming the file and everything that does not fit.
          FileNotFoundError: if there is no such file.
        """
        arrays = self.load(tree, collection)
        return jax.tree.map_with_path(
            lambda path, leaf: (
                jnp.asarray(arrays[format_path(path)]) if format_path(path) in arrays else leaf
            ),
            tree,
        )

    def load(self, tree: Any, collection: str = "params") -> dict[str, np.ndarray]:
        """Loads {path: array} for the leaves of a tree, of which only shapes and types count.

        Raises:
          ValueError: naming the file and everything that does not fit.
          FileNotFoundError: if there is no such file.
        """
        stored, plan = self.plan(tree, collection)
        leaves = {format_path(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        sources = {source.array: source for source in plan}
        loaded: dict[str, np.ndarray] = {}
        for array, values in stored.read(list(sources)):
            source = sources[array]
            path, leaf = source.path, leaves[source.path]
            try:
                values = fit_array(values, source, leaf)
            except ValueError as error:
                raise ValueError(f"{self.path}: {error}.") from None
            if source.layer is not None:
                loaded.setdefault(path, np.empty(leaf.shape, leaf.dtype))[source.layer] = values
            else:
                loaded[path] = loaded[path] + values if path in loaded else values
        return loaded

    def plan(self, tree: Any, collection: str = "params") -> tuple[StoredArrays, list[Source]]:
        """Plans which arrays of the file fill a tree, without reading them.

        Raises:
          ValueError: naming the file and everything that does not fit.
          FileNotFoundError: if there is no such file.
        """
        stored = list_stored_arrays(Path(self.path), self.seed)
        leaves = {format_path(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        plan, problems = plan_sources(
            stored.arrays,
            leaves,
            collection=collection,
            names=self.names,
            prefix=self.prefix,
            allow=self.allow,
            interpolate=self.interpolate,
        )
        if problems:
            raise ValueError(
                f"{self.path} does not fit the model's {collection}: {'; '.join(problems)}. "
                "Correct `names` or `prefix`, or list in `allow` the names of arrays that may stay "
                "unused and the paths of parameters that may stay as initialized."
            )
        return stored, plan

    def compute_digest(self) -> str:
        """Computes the SHA-256 of the file; of a folder, that of its files' names and digests."""
        return compute_weights_digest(Path(self.path))


def weights(
    path: str | os.PathLike[str],
    names: Sequence[Rename] = (),
    allow: Sequence[str] = (),
    *,
    prefix: str = "",
    interpolate: Mapping[str, Literal["1d", "2d"]] | None = None,
    seed: int | None = None,
) -> Weights:
    """Describes weights in a file, to initialize a part of a model with them.

    Nothing is read until they are applied: by `Experiment(init={"encoders_text": weights(...)})`,
    or by `weights(...).apply(params)`. Floating-point arrays take the type of the parameters.

    Args:
      path: a file .safetensors, .npz or .msgpack (Flax's); a folder with `model.safetensors` or
        `model.safetensors.index.json`; a folder of Orbax; the directory of one arm of a run of
        mmjax, of which the best parameters are taken.
      names: rules from the names in the file to paths of parameters, the first that matches
        decides; see `Rename`. Without rules names are paths, as in files that mmjax and Flax write.
      allow: patterns, as of `fnmatch`, of names of arrays that may stay unused, and of paths of
        parameters that no array fills or fits, which keep their initial values.
      prefix: only arrays whose names begin with it count; it is removed before `names` apply.
      interpolate: {pattern of paths: "1d" or "2d"} of tables of positions that are resized if the
        model has another number of them; see `mmjax.pretrained.positions.resize_positions`.
      seed: which seed of a run; None is the first.

    Raises:
      ValueError: if the file is a pickle, or a rule or an option is not valid.

    Example:
      >>> import pathlib, tempfile
      >>> rules = [Rename("encoder.{i}.weight", "layers/kernel", "linear")]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "two_layers.npz")
      ...     np.savez(path, **{f"encoder.{i}.weight": np.full((3, 2), i) * 1.0 for i in range(2)})
      ...     params = weights(path, rules).apply({"layers": {"kernel": jnp.zeros((2, 2, 3))}})
      >>> params["layers"]["kernel"][:, 0, 0].tolist()
      [0.0, 1.0]
    """
    return Weights(path, names, allow, prefix, interpolate or {}, seed)


def digest_init(init: Mapping[str, Weights]) -> dict[str, str]:
    """Computes {part: SHA-256} of the files of `Experiment.init`; those that are gone are left out.

    Example:
      >>> digest_init({"encoders_text": weights("gone.npz")})
      {}
    """
    return {part: w.compute_digest() for part, w in init.items() if Path(w.path).exists()}


def check_and_record_weights(
    init: Mapping[str, Weights], directory: Path, *, allow: bool = False
) -> None:
    """Compares weight files with those that a run has begun with, and records them in it.

    A file that is gone is not compared: a run that continues needs none.

    Args:
      init: `Experiment.init`.
      directory: where the run has its checkpoints.
      allow: whether other weights are recorded instead of refused.

    Raises:
      ValueError: the run in the directory has begun with other weights.
      DamagedFileError: the record is damaged.
    """
    known, new = read_recorded_weights(directory), digest_init(init)
    for part in sorted(known.keys() | new.keys()) if known and not allow else ():
        is_gone = part in init and part not in new
        if known.get(part) != new.get(part) and not is_gone:
            fault = "has none"
            if part in init:
                fault = f"reads {init[part].path}, of another SHA-256"
            raise ValueError(
                f"the run in {directory} has begun with other weights in {part!r}: the experiment "
                f"{fault}. Restore them, or start anew in another directory."
            )
    if new and new != known and not jax.process_index():
        files.write_json(directory / _RECORD_FILE, {"weights": known | new})


def read_recorded_weights(directory: Path) -> dict[str, str]:
    """Reads {part: SHA-256} of the weights that a run has begun with; {} if there were none.

    Raises:
      DamagedFileError: the record is damaged.
    """
    path = directory / _RECORD_FILE
    if not path.is_file():
        return {}
    stored = files.read_json(path)
    with files.name_damaged_file(path):
        return dict(stored["weights"])
