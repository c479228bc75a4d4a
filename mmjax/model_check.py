"""Whether the parts of a model fit: the shapes of a batch run through it, and nothing is computed.

What a part refuses, or cannot take, becomes an error that says which part it is, what it gets and
what to do.
"""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.errors import FlaxError

from mmjax.formatting import batch_shapes, is_array
from mmjax.model import Model
from mmjax.types import Batch, Branches, Tokens

# What to do where JAX or Flax fails in a part: their errors do not say.
MENDS = {
    "encoders": "Give the modality an encoder for such arrays.",
    "fusion": "Let it project the modalities to what it needs, or use another fusion.",
    "sharing": "Use a sharing for what the fusion makes.",
    "heads": "Use a head for such features and targets.",
    "auxiliary": "Use an objective for what the model makes.",
}

# How mmjax's own parts fail, besides, in the place of another kind of part.
MISUSE = (AttributeError, LookupError, ArithmeticError)
FAILURES = (ValueError, TypeError, FlaxError, *MISUSE)

# Attributes that say how often a part repeats a layer, each of which is traced.
REPEATS = ("layers", "rounds", "blocks", "levels")
MAX_REPEATS = 1000


class Part(NamedTuple):
    """A part of a model.

    Attributes:
      path: where it is in the model, such as "encoders.speech".
      module: the module; a plain function may be an auxiliary objective.
      copies: how many of it run at once, if the sharing asks for copies of the backbone.
    """

    path: str
    module: Any
    copies: int = 1

    @property
    def kind(self) -> str:
        """What it is: a key of MENDS."""
        return self.path.partition(".")[0]


class Call(NamedTuple):
    """What a part gets first of all, and what it returns, with shapes in place of arrays."""

    part: Part
    input: Any
    output: Any


class Trace(NamedTuple):
    """What happens in a model.

    Attributes:
      calls: {name of a part's parameters: its first call}.
      params: shapes of the parameters, by the same names.
    """

    calls: dict[str, Call]
    params: dict[str, Any]


# (name, part, what it gets first of all, a function that calls it) -> what it returns.
Around = Callable[[str, Part, Any, Callable[[], Any]], Any]


def parts_of(model: Model) -> dict[str, Part]:
    """All parts that a model may call, by the names of their parameters."""
    tasks = tuple(sorted(model.heads))
    copies = model.sharing.copies(tasks) if hasattr(model.sharing, "copies") else None
    common, own = (1, 0) if copies is None else (copies.shared or 0, copies.own or 0)
    parts = {"sharing": Part("sharing", model.sharing)}
    for before, count in (("", common), ("own_", own)):
        parts[f"{before}fusion"] = Part("fusion", model.fusion, count)
        for m, encoder in model.encoders.items():
            parts[f"{before}encoders_{m}"] = Part(f"encoders.{m}", encoder, count)
    for t, head in model.heads.items():
        parts[f"heads_{t}"] = Part(f"heads.{t}", head)
    for m in model.encoders:
        parts[f"branch_sharing_{m}"] = Part("sharing", model.sharing)
        for t, head in model.heads.items():
            parts[f"branch_heads_{m}_{t}"] = Part(f"heads.{t}", head)
    for name, objective in model.auxiliary.items():
        parts[f"auxiliary_{name}"] = Part(f"auxiliary.{name}", objective)
    return parts


@contextlib.contextmanager
def watched(model: Model, around: Around) -> Iterator[Model]:
    """The model, but such that `around` calls its parts, while the context lasts.

    What parts call themselves is not seen, nor are heads that auxiliary objectives call again.
    """
    parts = parts_of(model)
    inside, before = list[str](), set[str]()

    def through(name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        inside.append(name)
        made = around(name, parts[name], args[0], functools.partial(call, *args, **kwargs))
        inside.pop()
        before.add(name)
        return made

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        name = context.module.name
        again = name in before and parts[name].kind != "auxiliary"
        if inside or again or name not in parts or context.method_name != "__call__":
            return call(*args, **kwargs)
        return through(name, call, args, kwargs)

    def seen(name: str, objective: Any) -> Any:
        if isinstance(objective, nn.Module):
            return objective
        return lambda *args, **kwargs: through(f"auxiliary_{name}", objective, args, kwargs)

    with nn.intercept_methods(intercept):
        yield model.clone(auxiliary={n: seen(n, o) for n, o in model.auxiliary.items()})


def trace(model: Model, batch: Batch) -> Trace:
    """Runs the shapes of a batch through a model and notes what its parts get and return.

    Raises:
      ValueError: a part does not fit; the message names it, its type, what it gets and the mend.
    """
    calls: dict[str, Call] = {}

    def note(name: str, part: Part, x: Any, call: Callable[[], Any]) -> Any:
        with explained(part, f"gets {batch_shapes(x)}"):
            check_input(part, x)
            made = call()
            check_output(part, made)
        calls.setdefault(name, Call(part, *shapes((x, made))))
        return made

    with watched(model, note) as seen:
        variables = jax.eval_shape(
            lambda key, batch: seen.init(key, batch, method="start"), key_shape(), shapes(batch)
        )
    return Trace(calls, dict(variables.get("params", {})))


def check_fit(model: Model, batch: Batch) -> None:
    """Refuses a model whose parts do not fit each other or the batch, its losses included.

    Args:
      model: the model.
      batch: arrays, or their shapes.

    Raises:
      ValueError: naming the part, its type, what it gets and the mend.
    """
    check_repeats(model)
    targets = shapes(batch.targets)
    for call in trace(model, batch).calls.values():
        part, prediction = call.part, call.output
        if part.kind != "heads":
            continue
        target = targets[part.path.removeprefix("heads.")]
        what = f"predicts {batch_shapes(prediction)} for targets {batch_shapes(target)}"
        with explained(part, what):
            jax.eval_shape(jax.vmap(part.module.example_loss), prediction, target)
            jax.eval_shape(jax.vmap(part.module.statistics), prediction, target)


def check_repeats(model: Model) -> None:
    """Refuses so many layers that not even their shapes could be traced in a lifetime."""
    for part in parts_of(model).values():
        for name in REPEATS:
            count = getattr(part.module, name, 0)
            if isinstance(count, int) and count > MAX_REPEATS:
                raise ValueError(
                    f"model.{part.path}.{name} is {count}; it must be at most {MAX_REPEATS}."
                )


@contextlib.contextmanager
def explained(part: Part, what: str) -> Iterator[None]:
    """Says of an error in which part it is, and what that part gets."""
    try:
        yield
    except FAILURES as error:
        known = type(part.module).__module__.startswith("mmjax.")
        if not known and isinstance(error, MISUSE):
            raise  # a bug in a part of the user's own
        message = str(error).strip()
        if not raised_by_mmjax(error):
            message = f"{message.rstrip('.')}. {MENDS[part.kind]}"
        kind = getattr(part.module, "__name__", type(part.module).__name__)
        raise ValueError(f"model.{part.path} ({kind}) {what}: {message}") from error


def raised_by_mmjax(error: Exception) -> bool:
    """Whether mmjax itself raised it, and so says what to do; it raises ValueErrors only."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return type(error) is ValueError and frame.f_globals.get("__name__", "").startswith("mmjax.")


def check_input(part: Part, x: Any) -> None:
    """Refuses tokens for a head of vectors."""
    wanted = getattr(part.module, "features", "any")
    if part.kind == "heads" and wanted == "vector" and len(x.shape) != 2:
        raise ValueError(
            "it needs one vector an example [b d]; let the fusion pool the tokens, or use a head "
            "of tokens."
        )


def check_output(part: Part, made: Any) -> None:
    """Refuses what the rest of the model cannot take from an encoder, a fusion or a sharing."""
    wanted = ""
    if part.kind == "encoders" and not is_tokens(made):
        wanted = (
            "an encoder returns Tokens, values [b n d] and mask [b n]; put a plain module into "
            "mmjax.encoders.Wrap."
        )
    if part.kind == "fusion" and not (is_array(made) or isinstance(made, Branches)):
        wanted = (
            "a fusion returns one vector per example [b d]; pool tokens by mmjax.fusion.pool."
        )
    if part.kind == "sharing" and not isinstance(made, Mapping):
        wanted = "a sharing returns features [b d] for every task; put them into {task: features}."
    if wanted:
        raise ValueError(f"it returns {batch_shapes(made)}, but {wanted}")


def is_tokens(x: Any) -> bool:
    """Whether these are tokens [b n d] with their mask [b n]."""
    if not (isinstance(x, Tokens) and all(map(is_array, x))):
        return False
    return len(x.values.shape) == 3 and x.mask.shape == x.values.shape[:2]


def shapes(tree: Any) -> Any:
    """The tree with shapes in place of its arrays."""

    def one(x: Any) -> Any:
        if not is_array(x):
            return x
        return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))

    return jax.tree.map(one, tree)


def resized(batch: Batch, size: int) -> Batch:
    """The shapes of a batch of that many examples like these."""
    one = shapes(batch)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), one)


def key_shape() -> Any:
    """The shape of a random key."""
    return jax.eval_shape(lambda: jax.random.key(0))
