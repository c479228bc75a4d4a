"""The model's variables before the first step: random ones, and those that weight files fill."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Key

from mmjax.config.public_names import did_you_mean
from mmjax.inspection.model_parts import make_key_shape, replace_arrays_by_shapes
from mmjax.model import Model
from mmjax.parameters import overlay_tree
from mmjax.pretrained import Weights
from mmjax.types import Batch, Variables


def init_variables(model: Model, batch: Batch, key: Key[Array, ""]) -> Variables:
    """Returns random parameters and the model's other variables, by collection."""
    variables = model.init(key, batch, method="call_all_parts", mutable=True)
    others = sorted(set(variables) - {"params", "intermediates"})
    return {collection: variables[collection] for collection in ("params", *others)}


def trace_variables(model: Model, batch: Batch) -> Variables:
    """Returns the shapes of what `init_variables` returns."""
    shapes: Variables = jax.eval_shape(
        lambda key, batch: init_variables(model, batch, key),
        make_key_shape(),
        replace_arrays_by_shapes(batch),
    )
    return shapes


def load_initial_weights(init: Mapping[str, Weights], shapes: Variables) -> Variables:
    """Loads the arrays of `Experiment.init` from their files, as a part of the variables.

    Args:
      init: {path of a subtree of the variables: weights}; "" is the whole model. Of nested
        subtrees the inner one decides.
      shapes: those of the model's variables; the collections that a subtree is in are filled.

    Raises:
      ValueError: if a path is unknown, or weights do not fit.
      FileNotFoundError: if there is no such file.
    """
    loaded: Variables = {}
    for path, weights in sorted(init.items()):
        for collection in find_collections(path, shapes):
            subtree = get_subtree(shapes[collection], path)
            with _name_entry(path):
                filled = weights.load(subtree, collection)
            for name, array in filled.items():
                keys = [collection, *path.split("/") * bool(path), *name.split("/") * bool(name)]
                loaded = overlay_tree(loaded, _nest(keys, array))
    return loaded


def check_initial_weights(init: Mapping[str, Weights], shapes: Variables) -> None:
    """Refuses weights that do not fit; a missing file is reported when it is read.

    Raises:
      ValueError: as `load_initial_weights` does.
    """
    for path, weights in init.items():
        for collection in find_collections(path, shapes):
            if Path(weights.path).exists():
                with _name_entry(path):
                    weights.plan(get_subtree(shapes[collection], path), collection)


@contextlib.contextmanager
def _name_entry(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"init[{path!r}]: {error}") from error


def find_collections(path: str, shapes: Variables) -> list[str]:
    """Lists the collections that have variables at a path, parameters among them.

    Raises:
      ValueError: if the path has no parameters; the message lists the nearest paths.
    """
    collections = [c for c in shapes if get_subtree(shapes[c], path) is not None]
    if "params" not in collections:
        paths = _list_subtrees(shapes["params"])
        raise ValueError(
            f"init names {path!r}, but the model has no parameters there."
            f"{did_you_mean(path, paths)} Its parts are {', '.join(sorted(shapes['params']))}."
        )
    return collections


def get_subtree(tree: Any, path: str) -> Any:
    """Looks up a path with slashes in nested dictionaries; None if it does not exist."""
    for key in path.split("/") * bool(path):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _list_subtrees(tree: Any, prefix: str = "") -> list[str]:
    """Lists the paths of all subtrees and leaves."""
    if not isinstance(tree, Mapping):
        return []
    paths = []
    for key, value in tree.items():
        paths += [prefix + key, *_list_subtrees(value, f"{prefix}{key}/")]
    return paths


def _nest(keys: list[str], leaf: Any) -> Any:
    for key in reversed(keys):
        leaf = {key: leaf}
    return leaf
