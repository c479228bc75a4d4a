"""Checks that the parts of a model fit, by the shapes of a batch; nothing is computed.

An exception in a part becomes an error that names the part, its input and how to fix it.
"""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from flax.errors import FlaxError

from mmjax.inspection.model_parts import (
    Part,
    list_model_parts,
    make_key_shape,
    replace_arrays_by_shapes,
    wrap_model_parts,
)
from mmjax.model import Model
from mmjax.printing.formatting import format_batch_shapes, is_array
from mmjax.types import Batch, Branches, Tokens, Variables

# How to fix the model if JAX or Flax fails in a part: their errors do not say.
_FIXES = {
    "encoders": "Give the modality an encoder for such arrays.",
    "fusion": "Let it project the modalities to what it needs, or use another fusion.",
    "sharing": "Use a sharing for this output of the fusion.",
    "heads": "Use a head for such features and targets.",
    "auxiliary": "Use an objective for these outputs of the model.",
}

# Errors of mmjax's own parts if they are used in the place of another kind of part.
_MISUSE_ERRORS = (AttributeError, LookupError, ArithmeticError)
PART_ERRORS = (ValueError, TypeError, FlaxError, *_MISUSE_ERRORS)
"""Errors that JAX, Flax and Optax raise for values that they cannot use."""

# Attributes that hold the number of layers; tracing time grows with it.
_LAYER_COUNTS = ("layers", "rounds", "blocks", "levels")
MAX_LAYERS = 1000


class Call(NamedTuple):
    """First argument and output of a part, with shapes in place of arrays."""

    part: Part
    input: Any
    output: Any


class Trace(NamedTuple):
    """Calls and variables of a model.

    Attributes:
      calls: {name of a part's parameters: its first call}.
      variables: shapes of the parameters, by the same names, as "params", and of other collections.
      shares_features: whether all heads, or all of each branch, have the same input.
    """

    calls: dict[str, Call]
    variables: Variables
    shares_features: bool


def trace_model(model: Model, batch: Batch) -> Trace:
    """Runs the shapes of a batch through a model and records the inputs and outputs of its parts.

    Raises:
      ValueError: if a part does not fit; the message names it, its type, its input and the fix.
    """
    calls: dict[str, Call] = {}
    head_inputs: dict[str, list[Any]] = {}  # of each branch, whose name the heads' names begin with

    def record(name: str, part: Part, x: Any, call: Callable[[], Any]) -> Any:
        with _explain_errors(part, f"gets {format_batch_shapes(x)}"):
            _check_part_input(part, x)
            output = call()
            _check_part_output(part, output)
        if part.kind == "heads":
            task = part.path.removeprefix("heads.")
            head_inputs.setdefault(name.removesuffix(task), []).append(x)
        calls.setdefault(name, Call(part, *replace_arrays_by_shapes((x, output))))
        return output

    # `eval_shape` traces the model without computing: a check takes the time of one trace.
    with wrap_model_parts(model, record) as wrapped:
        # Mutable, since objectives may need the values that fusion and sharing sow.
        init = functools.partial(wrapped.init, method="call_all_parts", mutable=True)
        variables = jax.eval_shape(init, make_key_shape(), replace_arrays_by_shapes(batch))
    variables.pop("intermediates", None)
    # Features that tasks share are the same traced array.
    shares_features = all(x is inputs[0] for inputs in head_inputs.values() for x in inputs)
    return Trace(calls, {"params": {}, **variables}, shares_features)


def check_model_fits_batch(model: Model, batch: Batch) -> Trace:
    """Refuses a model whose parts do not fit each other or the batch, its losses included.

    Args:
      model: the model.
      batch: arrays, or their shapes.

    Returns:
      The calls of the parts, and the shapes of the variables.

    Raises:
      ValueError: naming the part, its type, its input and the fix.
    """
    _check_layer_counts(model)
    targets = replace_arrays_by_shapes(batch.targets)
    trace = trace_model(model, batch)
    for call in trace.calls.values():
        part, prediction = call.part, call.output
        if part.kind != "heads":
            continue
        target = targets[part.path.removeprefix("heads.")]
        what = (
            f"predicts {format_batch_shapes(prediction)} for targets {format_batch_shapes(target)}"
        )
        with _explain_errors(part, what):
            evaluate = jax.vmap(functools.partial(_evaluate, part.module))
            _, statistics = jax.eval_shape(evaluate, prediction, target)
            if reserved := sorted({"loss", "examples"} & set(statistics)):
                raise ValueError(
                    f"it has statistics named {reserved}, which evaluation adds itself; give them "
                    "other names."
                )
    return trace


def _evaluate(head: Any, prediction: Any, target: Any) -> tuple[Any, Any]:
    """Returns the loss and the statistics of a head's prediction for one example."""
    return head.example_loss(prediction, target), head.statistics(prediction, target)


def _check_layer_counts(model: Model) -> None:
    """Refuses numbers of layers that would take forever to trace."""
    for part in list_model_parts(model).values():
        for name in _LAYER_COUNTS:
            count = getattr(part.module, name, 0)
            if isinstance(count, int) and count > MAX_LAYERS:
                raise ValueError(
                    f"model.{part.path}.{name} is {count}; it must be at most {MAX_LAYERS}."
                )


@contextlib.contextmanager
def name_errors(part: str, problem: str) -> Iterator[None]:
    """Turns errors of JAX and of functions that users give into one that says what failed."""
    try:
        yield
    except PART_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not _is_raised_by_mmjax(error):
            reason = f"{problem}: {reason}"
        raise ValueError(f"{part}: {reason}") from error


@contextlib.contextmanager
def _explain_errors(part: Part, what: str) -> Iterator[None]:
    """Adds to an error the part that raised it, and `what`, such as the part's input."""
    try:
        yield
    except PART_ERRORS as error:
        known = type(part.module).__module__.startswith("mmjax.")
        if not known and isinstance(error, _MISUSE_ERRORS):
            raise  # a bug in a user's own part: its traceback helps more
        # Messages of mmjax's own parts say how to fix the model; others get advice for the kind of
        # part.
        message = str(error).strip()
        if not _is_raised_by_mmjax(error):
            message = f"{message.rstrip('.')}. {_FIXES[part.kind]}"
        kind = getattr(part.module, "__name__", type(part.module).__name__)
        raise ValueError(f"model.{part.path} ({kind}) {what}: {message}") from error


def _is_raised_by_mmjax(error: Exception) -> bool:
    """Returns whether mmjax raised it; its errors, all ValueErrors, say how to fix the model."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return type(error) is ValueError and frame.f_globals.get("__name__", "").startswith("mmjax.")


def _check_part_input(part: Part, x: Any) -> None:
    """Refuses tokens for a head that takes one vector per example."""
    wanted = getattr(part.module, "features", "any")
    if part.kind == "heads" and wanted == "vector" and len(x.shape) != 2:
        raise ValueError(
            "it needs one vector per example [b d]; let the fusion pool the tokens, or use a head "
            "of tokens."
        )


def _check_part_output(part: Part, output: Any) -> None:
    """Refuses an output of an encoder, fusion or sharing that the rest of the model cannot use."""
    wanted = ""
    if part.kind == "encoders" and not _is_tokens(output):
        wanted = (
            "an encoder returns Tokens, values [b n d] and mask [b n]; put a plain module into "
            "mmjax.encoders.Wrap."
        )
    if part.kind == "fusion" and not (is_array(output) or isinstance(output, Branches)):
        wanted = "a fusion returns one vector per example [b d]; pool tokens by mmjax.fusion.pool."
    if part.kind == "sharing" and not isinstance(output, Mapping):
        wanted = "a sharing returns features [b d] for every task; put them into {task: features}."
    if wanted:
        raise ValueError(f"it returns {format_batch_shapes(output)}, but {wanted}")


def _is_tokens(x: Any) -> bool:
    """Returns whether these are tokens [b n d] with their mask [b n]."""
    if not (isinstance(x, Tokens) and all(map(is_array, x))):
        return False
    return len(x.values.shape) == 3 and x.mask.shape == x.values.shape[:2]
