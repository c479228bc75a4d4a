"""Hyperparameters of an experiment that differ between the replicas of one program.

A replica is one training inside of a program. Replicas differ in their seeds and, in a `Sweep`, in
numbers of the configuration: the experiment is then built inside of the traced function, with a
`TracedNumber` in place of each.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.experiment import Experiment

HparamValues = dict[str, Float[Array, "..."]]


class UntraceableError(ValueError):
    """A number that differs between replicas decides something that they must have in common."""


@jax.tree_util.register_pytree_node_class
class TracedNumber:
    """A traced number that can still be compared, as constructors do to refuse bad values.

    Arithmetic and JAX's functions use the traced value. A comparison returns a bool if the answer
    is the same for every replica, so that branches are right for all of them. It is not a Python
    number: uses that need one, such as a shape, are refused instead of using one replica's value
    silently.

    Attributes:
      path: path in the configuration.
      values: value in every replica.
      traced: value in the replica that is traced.
    """

    def __init__(self, path: str, values: tuple[float, ...], traced: Any) -> None:
        self.path, self.values, self.traced = path, values, traced

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, tuple[float, ...]]]:
        """Returns the traced value as the only leaf."""
        return (self.traced,), (self.path, self.values)

    @classmethod
    def tree_unflatten(
        cls, aux: tuple[str, tuple[float, ...]], children: tuple[Any]
    ) -> "TracedNumber":
        """Inverts `tree_flatten`."""
        return cls(*aux, *children)

    def __jax_array__(self) -> Any:
        return self.traced

    def refuse(self, *_: Any) -> Any:
        """Refuses the conversion to a Python number."""
        raise UntraceableError(
            f"{self.path} must be one Python number here (it may decide a shape), so it cannot "
            "differ between the replicas of one program."
        )

    __float__ = __int__ = __index__ = __array__ = __iter__ = __round__ = refuse
    __hash__ = object.__hash__

    def compare(self, name: str, other: Any) -> bool:
        """Returns the result of a comparison that is the same in every replica."""
        answers = {bool(getattr(operator, name)(value, other)) for value in self.values}
        if len(answers) > 1:
            raise UntraceableError(
                f"{self.path}: the program branches on its value, and not in the same way for "
                f"{', '.join(map(str, sorted(set(self.values))))}; such values cannot be in one "
                "program."
            )
        return answers.pop()

    def __bool__(self) -> bool:
        return self.compare("ne", 0)


def _make_comparison(name: str) -> Callable[[TracedNumber, Any], bool]:
    return lambda self, other: self.compare(name, other)


def _make_operators(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns an operator of the traced value, and the same with reflected operands."""
    function = getattr(operator, name)

    def forward(self: TracedNumber, *others: Any) -> Any:
        return function(
            self.traced, *(o.traced if isinstance(o, TracedNumber) else o for o in others)
        )

    def backward(self: TracedNumber, other: Any) -> Any:
        return function(other, self.traced)

    return forward, backward


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(TracedNumber, f"__{_name}__", _make_comparison(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _forward, _backward = _make_operators(_name)
    setattr(TracedNumber, f"__{_name}__", _forward)
    setattr(TracedNumber, f"__r{_name}__", _backward)
for _name in ("neg", "pos", "abs"):
    setattr(TracedNumber, f"__{_name}__", _make_operators(_name)[0])


class Sweep(NamedTuple):
    """The hyperparameters in which replicas differ.

    Attributes:
      build: {path: number} -> the experiment with these numbers; its data are loaded already.
      values: {path: its value in every replica}.
    """

    build: Callable[[Mapping[str, Any]], Experiment]
    values: Mapping[str, tuple[float, ...]]

    def experiments(self, replicas: int) -> tuple[Experiment, ...]:
        """Returns the experiment of every replica."""
        return tuple(
            self.build({path: values[i] for path, values in self.values.items()})
            for i in range(replicas)
        )

    def traced(self, values: HparamValues) -> Experiment:
        """Returns the experiment of the replica that is traced.

        Raises:
          UntraceableError: naming the path whose number cannot be traced.
        """
        try:
            return self.build({p: TracedNumber(p, self.values[p], x) for p, x in values.items()})
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UntraceableError):
                cause = cause.__cause__
            raise (cause or error) from None

    def arrays(self) -> HparamValues:
        """Returns {path: Float[s]}, one value per replica."""
        return {path: jnp.array(values, jnp.float32) for path, values in self.values.items()}


def make_constant_sweep(experiment: Experiment) -> Sweep:
    """Returns a sweep without hyperparameters: all replicas train the same experiment."""
    return Sweep(lambda numbers: experiment, {})


def check_traceable(sweep: Sweep, trace: Callable[[Sweep], Any]) -> None:
    """Refuses hyperparameters that cannot differ between replicas, before anything is compiled.

    Args:
      sweep: the hyperparameters.
      trace: traces the program of a sweep.

    Raises:
      UntraceableError: naming the path and what to do.
    """
    for path, values in sweep.values.items():
        try:
            trace(_restrict_to_path(sweep, path, values))
        except (UntraceableError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise UntraceableError(
                f"{path} cannot be traced: {reason} Remove it from `vmapped`; each of its values "
                "then gets a program of its own."
            ) from error


def _restrict_to_path(sweep: Sweep, path: str, values: Sequence[float]) -> Sweep:
    """Returns the sweep with one path; all others have the first replica's values."""
    first = {p: v[0] for p, v in sweep.values.items()}
    return Sweep(lambda numbers: sweep.build({**first, **numbers}), {path: tuple(values)})
