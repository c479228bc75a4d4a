"""A trained model as a `jax.export` artifact, which needs only JAX to load and run."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from mmjax.export.signature import (
    Arrays,
    make_exported_function,
    make_input_arrays,
    make_input_structs,
)
from mmjax.inspection.equations import iterate_equations
from mmjax.kernels.portable import use_plain_kernels
from mmjax.runs.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")
# Primitives that call Python functions, which cannot be serialized.
_CALLBACKS = frozenset({"pure_callback", "io_callback", "debug_callback", "debug_print"})


class Traced(NamedTuple):
    """An exported function after tracing.

    Attributes:
      jaxpr: of the flat inputs to the flat outputs, in the order of the names.
      inputs: {name: shape and type}, with a symbolic batch size.
      outputs: {name: shape and type}.
    """

    jaxpr: ClosedJaxpr
    inputs: Arrays
    outputs: Arrays


def serialize_for_jax(trained: Trained) -> bytes:
    """Serializes a trained model for CPU, CUDA and TPU, with a symbolic batch size.

    `jax.export.deserialize(content).call(arrays)` runs it, with the parameters inside. It
    contains the plain version of each kernel, which runs anywhere, not the one for CPU.

    Raises:
      ValueError: naming the operation that cannot leave Python, or what XLA cannot serialize.
    """
    traced = trace_for_export(trained)

    def predict(arrays: Arrays) -> Arrays:
        # The traced jaxpr, not the model: tracing that again here would use the kernels for CPU.
        values = jaxpr_as_fun(traced.jaxpr)(*(arrays[name] for name in traced.inputs))
        return dict(zip(traced.outputs, values, strict=True))

    try:
        exported = export.export(jax.jit(predict), platforms=PLATFORMS)(traced.inputs)
        return bytes(exported.serialize())
    except Exception as error:  # JAX documents no types for what it cannot serialize
        raise ValueError(
            f"the format 'jax' cannot express this model: {get_first_line(error)}"
        ) from error


def run_jax(content: bytes, arrays: Arrays) -> dict[str, np.ndarray]:
    """Runs a serialized model on the default device."""
    outputs: dict[str, np.ndarray] = jax.device_get(
        export.deserialize(bytearray(content)).call(arrays)
    )
    return outputs


def trace_for_export(trained: Trained) -> Traced:
    """Traces the exported function with a symbolic batch size and the plain kernels.

    Raises:
      ValueError: the model calls Python while it runs, or needs to know the batch size.
    """
    (batch,) = export.symbolic_shape("batch")
    inputs = make_input_structs(make_input_arrays(trained.spec), batch)
    inputs = dict(sorted(inputs.items()))  # as JAX orders the leaves of a dictionary
    with use_plain_kernels():
        try:
            function = make_exported_function(trained)
            jaxpr, outputs = jax.make_jaxpr(function, return_shape=True)(inputs)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                "the model cannot be traced with an unknown number of examples: "
                f"{get_first_line(error)}"
            ) from error
    for eqn in iterate_equations(jaxpr):
        if eqn.primitive.name in _CALLBACKS:
            raise ValueError(
                f"the primitive {eqn.primitive.name!r} of {describe_origin(eqn)} calls Python, "
                "which an exported model does not have; remove it, such as a jax.debug.print."
            )
    return Traced(jaxpr, inputs, dict(sorted(outputs.items())))


def describe_origin(eqn: Any) -> str:
    """Describes where an equation comes from: its modules by path, or "the model"."""
    scopes = [scope for scope in str(eqn.source_info.name_stack).split("/") if scope]
    return "/".join(scopes) or "the model"


def get_first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]
