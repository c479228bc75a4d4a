"""Parts of a model, and the interception of their calls: for the model check and the summary.

Only shapes run through the model; nothing is computed.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from mmjax.branches import list_branches
from mmjax.model import Model
from mmjax.printing.formatting import is_array
from mmjax.types import Batch


class Part(NamedTuple):
    """A part of a model.

    Attributes:
      path: path of the part in the model, such as "encoders.speech".
      module: the module; a plain function may be an auxiliary objective.
      copies: number of copies that run at once, if the sharing requests copies of the backbone.
    """

    path: str
    module: Any
    copies: int = 1

    @property
    def kind(self) -> str:
        """The field of `Model` that holds the part, such as "encoders"."""
        return self.path.partition(".")[0]


# (name, part, its first argument, a function that calls it) -> the part's output.
PartWrapper = Callable[[str, Part, Any, Callable[[], Any]], Any]


def list_model_parts(model: Model) -> dict[str, Part]:
    """Returns all parts that a model may call, by the names of their parameters."""
    tasks = tuple(sorted(model.heads))
    copies = model.sharing.copies(tasks) if hasattr(model.sharing, "copies") else None
    common, single = (1, 0) if copies is None else (copies.shared or 0, copies.own or 0)
    parts = {"sharing": Part("sharing", model.sharing)}
    for prefix, count in (("", common), ("own_", single)):
        parts[f"{prefix}fusion"] = Part("fusion", model.fusion, count)
        for m, encoder in model.encoders.items():
            parts[f"{prefix}encoders_{m}"] = Part(f"encoders.{m}", encoder, count)
    for t, head in model.heads.items():
        parts[f"heads_{t}"] = Part(f"heads.{t}", head)
    for m in list_branches(model.encoders, model.fusion):
        parts[f"branch_sharing_{m}"] = Part("sharing", model.sharing)
        for t, head in model.heads.items():
            parts[f"branch_heads_{m}_{t}"] = Part(f"heads.{t}", head)
    for name, objective in model.auxiliary.items():
        parts[f"auxiliary_{name}"] = Part(f"auxiliary.{name}", objective)
    return parts


@contextlib.contextmanager
def wrap_model_parts(model: Model, around: PartWrapper) -> Iterator[Model]:
    """Yields the model such that `around` calls its parts, while the context lasts.

    Calls that a part makes itself are not intercepted, nor are heads that auxiliary objectives call
    again.
    """
    parts = list_model_parts(model)
    active, called = list[str](), set[str]()

    def call_part(name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        active.append(name)
        output = around(name, parts[name], args[0], functools.partial(call, *args, **kwargs))
        active.pop()
        called.add(name)
        return output

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        name = context.module.name
        # Objectives may call heads again; they are parts themselves, and may be called once per
        # copy of the backbone.
        again = name in called and parts[name].kind != "auxiliary"
        if active or again or name not in parts or context.method_name != "__call__":
            return call(*args, **kwargs)
        return call_part(name, call, args, kwargs)

    def wrap_objective(name: str, objective: Any) -> Any:
        if isinstance(objective, nn.Module):
            return objective  # Flax intercepts it
        call = functools.partial(call_part, f"auxiliary_{name}", objective)
        return _WrappedObjective(objective, call)

    with nn.intercept_methods(intercept):
        wrapped = {name: wrap_objective(name, o) for name, o in model.auxiliary.items()}
        yield model.clone(auxiliary=wrapped)


class _WrappedObjective:
    """A plain objective whose calls are recorded; its attributes are those of the objective."""

    def __init__(self, objective: Any, call: Callable[[Any, Any], Any]) -> None:
        self._objective = objective
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet set, while the object is copied
            raise AttributeError(name)
        return getattr(self._objective, name)


def replace_arrays_by_shapes(tree: Any) -> Any:
    """Replaces the arrays of a tree by their shapes and types."""

    def to_shape(x: Any) -> Any:
        if not is_array(x):
            return x
        return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))

    return jax.tree.map(to_shape, tree)


def make_batch_shapes(batch: Batch, size: int) -> Batch:
    """Returns the shapes of a batch of `size` examples like these."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype),
        replace_arrays_by_shapes(batch),
    )


def make_key_shape() -> Any:
    """Returns the shape and type of a random key."""
    return jax.eval_shape(lambda: jax.random.key(0))
