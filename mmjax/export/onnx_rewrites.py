"""Rewrites a jaxpr into one that jax2onnx converts, with the same results.

jax2onnx 0.13 cannot convert reverse scans, stacks, convolutions in less common layouts, and some
function calls, and ignores the transpositions of reshapes. It converts poolings, over the axes of
examples and channels, too, and concatenations with empty arrays to what ONNX Runtime refuses. All
other equations are unchanged.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

# Parameters in which calls, such as those of jit and custom_jvp, hold the function they call.
_INLINED = {"call_jaxpr", "fun_jaxpr", "jaxpr"}


def rewrite_for_onnx(jaxpr: ClosedJaxpr) -> ClosedJaxpr:
    """Returns the jaxpr with calls inlined, forward scans and channels-first convolutions.

    Example:
      >>> from jax.extend.core import jaxpr_as_fun
      >>> total = lambda x: lax.scan(lambda c, x: (c + x, c), 0.0, x, reverse=True)[1]
      >>> backward = jax.make_jaxpr(total)(np.arange(3.0, dtype=np.float32))
      >>> forward = rewrite_for_onnx(backward)
      >>> "reverse=True" in str(forward)
      False
      >>> jaxpr_as_fun(forward)(np.arange(3.0, dtype=np.float32))[0].tolist()
      [3.0, 2.0, 0.0]
    """
    structs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in jaxpr.jaxpr.invars]
    return jax.make_jaxpr(lambda *arrays: _evaluate(jaxpr, arrays))(*structs)


def _evaluate(jaxpr: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a jaxpr equation by equation, with the rules of this module."""
    values: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    values |= zip(jaxpr.jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.jaxpr.eqns:
        scope = str(eqn.source_info.name_stack) or "model"
        with jax.named_scope(scope):  # errors of the converter name it
            results = _apply_equation(eqn, [read(atom) for atom in eqn.invars])
        values |= zip(eqn.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _apply_equation(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    if rule := _RULES.get(eqn.primitive.name):
        return rule(eqn, arguments)
    if eqn.primitive.name not in ("while", "cond"):
        for name in _INLINED & eqn.params.keys():
            return _evaluate(_close(eqn.params[name]), arguments)
    result = eqn.primitive.bind(*arguments, **eqn.params)
    return result if eqn.primitive.multiple_results else [result]


def _close(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _apply_scan(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Replaces a reverse scan by a forward scan over reversed arrays."""
    params = eqn.params
    constants, carry, arrays = _split_scan_arguments(params, arguments)
    reverse = (lambda x: lax.rev(x, (0,))) if params["reverse"] else lambda x: x

    def step(carry: list[Any], elements: list[Any]) -> tuple[list[Any], list[Any]]:
        results = _evaluate(params["jaxpr"], [*constants, *carry, *elements])
        return results[: len(carry)], results[len(carry) :]

    carry, stacked = lax.scan(step, carry, [reverse(x) for x in arrays], params["length"])
    return [*carry, *map(reverse, stacked)]


def _split_scan_arguments(params: dict[str, Any], arguments: list[Any]) -> list[list[Any]]:
    """Splits the arguments of a scan: its constants, its initial carry, what it scans over."""
    if "ft_in" in params:  # JAX 0.12
        return [list(part) for part in params["ft_in"].update(arguments).unpack()]
    start, stop = params["num_consts"], params["num_consts"] + params["num_carry"]
    return [arguments[:start], arguments[start:stop], arguments[stop:]]


def _apply_convolution(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Convolves in the layout of ONNX: examples, channels, spatial axes."""
    params = dict(eqn.params)
    # Each lists an operand's axes in the order of the target layout, hence is the permutation for
    # `transpose`; `argsort` below inverts that of the output.
    image, kernel, out = params.pop("dimension_numbers")
    places = "DHW"[-(len(image) - 2) :]
    x, weights = (a.transpose(axes) for a, axes in zip(arguments, (image, kernel), strict=True))
    y = lax.conv_general_dilated(
        x,
        weights,
        dimension_numbers=(f"NC{places}", f"OI{places}", f"NC{places}"),
        **params,
    )
    return [y.transpose(np.argsort(out))]


def _apply_concatenate(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Concatenates the arrays that are not empty along the axis, if there is one."""
    axis = eqn.params["dimension"]
    filled = [x for x in arguments if x.shape[axis] != 0] or arguments[:1]
    return [lax.concatenate(filled, axis)]


def _apply_reshape(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Transposes an array before its reshape if the equation does both."""
    x, *sizes = arguments
    order = eqn.params["dimensions"]
    x = x if order is None else lax.transpose(x, order)
    return [eqn.primitive.bind(x, *sizes, **eqn.params | {"dimensions": None})]


def _apply_stack(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Concatenates arrays with a new axis."""
    axis = eqn.params["axis"]
    return [lax.concatenate([lax.expand_dims(x, (axis,)) for x in arguments], axis)]


def _apply_unstack(eqn: JaxprEqn, arguments: list[Any]) -> list[Any]:
    """Slices an array along an axis, which it removes."""
    (x,), axis = arguments, eqn.params["axis"]
    return [lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis])]


def _apply_pooling(
    combine: Callable[[Any, Any], Any], neutral: float, eqn: JaxprEqn, arguments: list[Any]
) -> list[Any]:
    """Pools one axis after the other, by combining shifted slices."""
    (x,), params = arguments, eqn.params
    if any(step != 1 for step in params["base_dilation"]) or x.dtype.kind != "f":
        return [eqn.primitive.bind(x, **params)]
    fields = ("window_dimensions", "window_strides", "window_dilation", "padding")
    for axis, (size, stride, dilation, edges) in enumerate(
        zip(*(params[field] for field in fields), strict=True)
    ):
        if (size, stride, *edges) == (1, 1, 0, 0):
            continue  # such as the axis of the examples, whose size is not known
        if any(edges):
            # A row of the neutral value, of x's own size: jax2onnx does not pad arrays with an
            # unknown number of examples.
            row = jnp.maximum(jnp.minimum(lax.slice_in_dim(x, 0, 1, axis=axis), neutral), neutral)
            x = lax.concatenate([*[row] * edges[0], x, *[row] * edges[1]], axis)
        count = (x.shape[axis] - dilation * (size - 1) - 1) // stride + 1
        slices = []
        for start in range(0, size * dilation, dilation):
            stop = start + (count - 1) * stride + 1
            slices.append(lax.slice_in_dim(x, start, stop, stride, axis))
        x = functools.reduce(combine, slices)
    return [x]


_RULES: dict[str, Callable[[JaxprEqn, list[Any]], list[Any]]] = {
    "scan": _apply_scan,
    "conv_general_dilated": _apply_convolution,
    "concatenate": _apply_concatenate,
    "reshape": _apply_reshape,
    "stack": _apply_stack,
    "unstack": _apply_unstack,
    "reduce_window_max": functools.partial(_apply_pooling, lax.max, -np.inf),
    "reduce_window_sum": functools.partial(_apply_pooling, lax.add, 0.0),
}
