"""Counts the floating-point operations of a function without running it.

XLA's cost analysis counts the body of a loop once, regardless of the number of iterations, so that
a recurrent network seems to cost a single time step. This module counts on the jaxpr, which knows
the length of every scan.
"""

import collections
import warnings
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.interpreters.partial_eval import dce_jaxpr

_Shape = tuple[int, ...]


def _words(text: str) -> frozenset[str]:
    """Splits a text into the set of its words."""
    return frozenset(text.split())


# One operation per element of the result, but three for one_minus_square: (1 + x)(1 - x).
ELEMENTWISE = _words(
    """abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp
    cos cosh cumlogsumexp cummax cummin cumprod cumsum digamma div erf erf_inv erfc exp exp2 expm1
    floor igamma igammac integer_pow lgamma log log1p log2 logistic max min mul neg nextafter
    one_minus_square polygamma pow rem round rsqrt sign sin sinh sqrt square sub tan tanh zeta"""
)
# One operation per element except the first of each group that is reduced.
REDUCTIONS = _words("reduce_max reduce_min reduce_prod reduce_sum unshift")
WINDOWS = _words("reduce_window_max reduce_window_min reduce_window_sum")
# One operation per element of the updates.
SCATTERS = _words("scatter-add scatter-max scatter-min scatter-mul scatter-sub")
# Elements are moved, selected, sampled or converted: no operations.
FREE_PRIMITIVES = _words(
    """all_gather all_to_all approx_top_k bitcast_convert_type broadcast_in_dim complex concatenate
    conj convert_element_type copy copy_p device_put dynamic_slice dynamic_update_slice empty2
    expand_dims gather imag iota name optimization_barrier pad pmax pmin ppermute psum
    psum_invariant pvary real reduce_precision reshape rev scatter select_and_gather_add select_n
    sharding_constraint shift slice sort split squeeze stack stop_gradient top_k transpose unstack
    """
)
# Primitives whose inner jaxpr runs once.
CALL_PRIMITIVES = _words(
    """call checkpoint closed_call core_call custom_jvp_call custom_vjp_call custom_vmap_call
    eval_jaxpr jit pjit remat2"""
)


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """Counts the floating-point operations of a function call without computing anything.

    A product of matrices [m k] and [k n] counts 2mnk. A convolution counts every tap of the kernel
    at every position, padding included, as is usual; if its input has fewer positions than its
    result, as in gradients, it counts those, and thus no zeros between them. Arithmetic and
    functions such as exp count one per element, a sum of n numbers n - 1, and factorizations of
    matrices their cubic term. Comparisons, integers, random bits and data movement count nothing,
    nor does anything that the results do not need. A scan counts its body once per iteration, a
    conditional its most expensive branch. If the implementation depends on the platform, the
    default one is counted, so that the result does not depend on the machine.

    A `while_loop` counts as one iteration, with a warning, because the number is unknown.
    Operations without a rule, such as eigenvalues, count nothing, with a warning that names them.

    Args:
      function: any function that JAX can trace, gradients and `vmap` included.
      *args: its arguments; arrays may be `jax.ShapeDtypeStruct`s.

    Example:
      >>> count_flops(jnp.matmul, jnp.zeros((2, 3)), jnp.zeros((3, 4)))
      48
    """
    return sum(count_flops_by_scope(function, *args).values())


def count_flops_by_scope(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """Counts operations as `count_flops` does, separately for each `jax.named_scope`.

    Returns:
      {names of the scopes, the outer ones first: operations}; under `vmap` a name is in
      parentheses.
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    # Dead code is removed by XLA, too, so it must not count.
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    counts: collections.Counter[str] = collections.Counter()
    for eqn in needed.eqns:
        counts[str(eqn.source_info.name_stack)] += _count_equation(eqn)
    return dict(counts)


def _count_jaxpr(jaxpr: Jaxpr | ClosedJaxpr) -> int:
    """Counts the operations of a jaxpr."""
    inner = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    return sum(_count_equation(eqn) for eqn in inner.eqns)


def _count_equation(eqn: JaxprEqn) -> int:
    """Counts the operations of one equation, its inner jaxprs included."""
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        return params["length"] * _count_jaxpr(params["jaxpr"])
    if name == "while":
        warnings.warn("FLOPs: a loop of unknown length counts as one iteration", stacklevel=2)
        return _count_jaxpr(params["cond_jaxpr"]) + _count_jaxpr(params["body_jaxpr"])
    if name == "cond":
        platforms = params.get("branches_platforms") or ()
        if None in platforms:
            return _count_jaxpr(params["branches"][platforms.index(None)])
        # Which branch runs is unknown before the run; the longest is an upper bound.
        return max(_count_jaxpr(branch) for branch in params["branches"])
    if name in CALL_PRIMITIVES:
        return sum(_count_jaxpr(p) for p in params.values() if isinstance(p, Jaxpr | ClosedJaxpr))
    outputs: list[Any] = [v.aval for v in eqn.outvars]
    inputs: list[Any] = [v.aval for v in eqn.invars]
    if any(jnp.issubdtype(x.dtype, jnp.inexact) for x in outputs):
        return _count_arithmetic(name, params, [x.shape for x in inputs], outputs[0].shape)
    return 0


def _count_arithmetic(
    name: str, params: Mapping[str, Any], shapes: Sequence[_Shape], out: _Shape
) -> int:
    """Counts the operations of a primitive from the shapes of its arguments and result."""
    if name in FREE_PRIMITIVES:
        return 0
    if name in ELEMENTWISE:
        return prod(out) * (3 if name == "one_minus_square" else 1)
    if name == "polynomial":  # Horner's rule; the coefficients follow x
        return 2 * prod(out) * (len(shapes) - 2)
    if name in REDUCTIONS:
        return max(prod(shapes[0]) - prod(out), 0)
    if name in WINDOWS:
        return prod(out) * (prod(params["window_dimensions"]) - 1)
    if name == "select_and_scatter_add":
        return prod(shapes[0])
    if name in SCATTERS:
        return prod(shapes[2])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        # One multiplication and one addition per contracted entry.
        return 2 * prod(out) * prod(shapes[0][i] for i in contracted)
    if name == "conv_general_dilated":
        return _count_convolution(shapes[0], shapes[1], out, params["dimension_numbers"])
    if name in ("cholesky", "lu"):
        # n^3 / 3 for Cholesky's and 2 n^3 / 3 for the LU decomposition of an n x n matrix.
        return prod(shapes[0]) * shapes[0][-1] * (1 if name == "cholesky" else 2) // 3
    if name == "triangular_solve":
        # n^2 per right-hand side.
        return prod(out) * shapes[0][-1]
    warnings.warn(f"FLOPs: {name} has no rule and counts nothing", stacklevel=2)
    return 0


def _count_convolution(image: _Shape, kernel: _Shape, out: _Shape, axes: Any) -> int:
    """Counts 2 * examples * filters * channels per filter * taps * positions."""
    examples, filters, *out_sizes = (out[i] for i in axes.out_spec)
    _, channels, *taps = (kernel[i] for i in axes.rhs_spec)
    # Gradients dilate the input with zeros, so that it has fewer positions than the result.
    positions = map(min, out_sizes, (image[i] for i in axes.lhs_spec[2:]))
    return 2 * examples * filters * channels * prod(taps) * prod(positions)
