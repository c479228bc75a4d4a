"""The equations of a traced function."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def iterate_equations(jaxpr: Any) -> Iterator[JaxprEqn]:
    """Yields the equations of a jaxpr, and those of the jaxprs inside of them.

    Example:
      >>> jaxpr = jax.make_jaxpr(jax.jit(lambda x: 2 * x))(1.0)
      >>> [eqn.primitive.name for eqn in iterate_equations(jaxpr)]
      ['jit', 'mul']
    """
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        # Scans, branches and calls hold jaxprs as parameters, alone or in tuples.
        for value in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from iterate_equations(value)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)
