"""Numbers of an experiment that differ between the lanes of one program.

A lane is one training among those that run as one program. Lanes differ in their seeds, and, in a
`Sweep`, in numbers of the configuration too: the experiment is then built inside the traced
function, with a `Number` in the place of each.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.experiment import Experiment

Values = dict[str, Float[Array, "..."]]


class UntraceableError(ValueError):
    """A number that differs between lanes decides something that must be one for all of them."""


@jax.tree_util.register_pytree_node_class
class Number:
    """A traced number that can still be compared, as constructors do to refuse bad values.

    Arithmetic and JAX's functions see the traced value. A comparison is answered where the answer
    is the same for every lane, so that whatever depends on it is right for every lane. It is no
    Python number: what needs one, such as a shape, is refused, and never gets one lane's value
    silently.

    Attributes:
      path: where it stands in the configuration.
      values: its value in every lane.
      traced: its value in the lane at hand.
    """

    def __init__(self, path: str, values: tuple[float, ...], traced: Any) -> None:
        self.path, self.values, self.traced = path, values, traced

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, tuple[float, ...]]]:
        """As a pytree it is its traced value."""
        return (self.traced,), (self.path, self.values)

    @classmethod
    def tree_unflatten(cls, aux: tuple[str, tuple[float, ...]], children: tuple[Any]) -> "Number":
        """The inverse of `tree_flatten`."""
        return cls(*aux, *children)

    def __jax_array__(self) -> Any:
        return self.traced

    def refuse(self, *_: Any) -> Any:
        """Refuses to be a Python number."""
        raise UntraceableError(
            f"{self.path} must be one Python number here (it may decide a shape), so it cannot "
            "differ between the lanes of one program."
        )

    __float__ = __int__ = __index__ = __array__ = __iter__ = __round__ = refuse
    __hash__ = object.__hash__

    def compare(self, name: str, other: Any) -> bool:
        """What a comparison gives in every lane."""
        answers = {bool(getattr(operator, name)(value, other)) for value in self.values}
        if len(answers) > 1:
            raise UntraceableError(
                f"{self.path}: the program branches on its value, and not in the same way for "
                f"{', '.join(map(str, sorted(set(self.values))))}; values that differ so cannot "
                "be in one program."
            )
        return answers.pop()

    def __bool__(self) -> bool:
        return self.compare("ne", 0)


def _comparison(name: str) -> Callable[[Number, Any], bool]:
    return lambda self, other: self.compare(name, other)


def _arithmetic(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A method of the traced value, and the same with the operands the other way round."""
    function = getattr(operator, name)

    def forward(self: Number, *others: Any) -> Any:
        return function(self.traced, *(o.traced if isinstance(o, Number) else o for o in others))

    def backward(self: Number, other: Any) -> Any:
        return function(other, self.traced)

    return forward, backward


for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _comparison(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _forward, _backward = _arithmetic(_name)
    setattr(Number, f"__{_name}__", _forward)
    setattr(Number, f"__r{_name}__", _backward)
for _name in ("neg", "pos", "abs"):
    setattr(Number, f"__{_name}__", _arithmetic(_name)[0])


class Sweep(NamedTuple):
    """The numbers in which lanes differ.

    Attributes:
      build: {path: number} -> the experiment with these numbers. Its data are made already.
      values: {path: its value in every lane}.
    """

    build: Callable[[Mapping[str, Any]], Experiment]
    values: Mapping[str, tuple[float, ...]]

    def experiments(self, lanes: int) -> tuple[Experiment, ...]:
        """The experiment of every lane."""
        return tuple(
            self.build({path: values[i] for path, values in self.values.items()})
            for i in range(lanes)
        )

    def traced(self, values: Values) -> Experiment:
        """The experiment of the lane at hand, inside a traced function.

        Raises:
          UntraceableError: naming the path whose number cannot be traced.
        """
        try:
            return self.build({p: Number(p, self.values[p], x) for p, x in values.items()})
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UntraceableError):
                cause = cause.__cause__
            raise (cause or error) from None

    def arrays(self) -> Values:
        """{path: Float[s]}, a value a lane."""
        return {path: jnp.array(values, jnp.float32) for path, values in self.values.items()}


def one_for_all(experiment: Experiment) -> Sweep:
    """No numbers: all lanes are of one experiment."""
    return Sweep(lambda numbers: experiment, {})


def check_traceable(sweep: Sweep, trace: Callable[[Sweep], Any]) -> None:
    """Refuses numbers that cannot differ between lanes, before anything is compiled.

    Args:
      sweep: the numbers.
      trace: traces the program of a sweep.

    Raises:
      UntraceableError: naming the path and what to do.
    """
    for path, values in sweep.values.items():
        try:
            trace(alone(sweep, path, values))
        except (UntraceableError, TypeError) as error:
            reason = str(error).split("\n")[0]
            raise UntraceableError(
                f"{path} cannot be traced: {reason} Take it out of `vmapped`; its values then "
                "are programs of their own."
            ) from error


def alone(sweep: Sweep, path: str, values: Sequence[float]) -> Sweep:
    """The sweep with one path; all others are as in the first lane."""
    first = {p: v[0] for p, v in sweep.values.items()}
    return Sweep(lambda numbers: sweep.build({**first, **numbers}), {path: tuple(values)})
