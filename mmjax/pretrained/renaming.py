"""Rules that turn the names and layouts of arrays in a weight file into those of parameters.

A pattern is literal text with two kinds of gaps: `*` stands for any text, dots included, and
`{name}` for a whole number. The path of a rule is filled from the gaps. The first rule whose
pattern matches the whole name of an array decides.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Shape = tuple[int, ...]
Transform = Literal["linear", "conv", "reshape", "sum"]


class Rename(NamedTuple):
    r"""Says which parameter an array of a weight file fills, and how.

    Attributes:
      pattern: matches the array's name: `*` any text, `{name}` a whole number.
      path: path of the parameter, with slashes; each `*` is what the pattern's matched, in order,
        and each `{name}` the number. Arrays that differ in a number which the path does not name
        are stacked on a new first axis, in the order of the numbers: one parameter of a scanned
        stack of layers. None: the array is known and not used.
      transform: what is done before stacking:
        None: nothing.
        "linear": the kernel [out, in] of `torch.nn.Linear` becomes that of `Dense` [in, out]; for
          `DenseGeneral`, in or out is split into the parameter's axes.
        "conv": the kernel [out, in / groups, *window] of `torch.nn.Conv1d`, 2d or 3d becomes that
          of `Conv` [*window, in / groups, out].
        "reshape": the same elements in the shape of the parameter.
        "sum": the arrays with this path are added.
      collection: collection of Flax variables that has the path; None is that of the array in the
        file, or "params".

    Example:
      >>> rules = [Rename("layer.{i}.dense.weight", "layers/kernel", "linear")]
      >>> match_name(rules, "layer.3.dense.weight")
      Target(path='layers/kernel', layer=3, transform='linear', collection=None)
    """

    pattern: str
    path: str | None
    transform: Transform | None = None
    collection: str | None = None


class Target(NamedTuple):
    """Parameter that an array fills.

    Attributes:
      path: its path; None if the array is not used.
      layer: index of the array in a stack; None if it is not stacked.
      transform: see `Rename`.
      collection: see `Rename`.
    """

    path: str | None
    layer: int | None
    transform: Transform | None
    collection: str | None


def match_name(rules: Sequence[Rename], name: str) -> Target | None:
    """Returns what the first rule that matches a name says; None if no rule does.

    Raises:
      ValueError: if a rule leaves more than one number out of its path.
    """
    for rule in rules:
        match = _compile_pattern(rule.pattern).fullmatch(name)
        if match is None:
            continue
        if rule.path is None:
            return Target(None, None, rule.transform, rule.collection)
        numbers = {gap: int(text) for gap, text in match.groupdict().items() if gap[0] != "_"}
        texts = [text for gap, text in match.groupdict().items() if gap[0] == "_"]
        path, layer = _fill_path(rule, numbers, texts)
        return Target(path, layer, rule.transform, rule.collection)
    return None


def recurrent_names() -> tuple[Rename, ...]:
    """Lists the names of `torch.nn.LSTM` and `torch.nn.RNN` for `mmjax.encoders.RecurrentEncoder`.

    Both libraries put the gates in the same order. PyTorch has two biases, of which the sum counts.

    Example:
      >>> match_name(recurrent_names(), "weight_hh_l2").path
      'layer_2_forward/recurrent_kernel'
    """
    rules: list[Rename] = []
    for suffix, direction in (("_reverse", "backward"), ("", "forward")):
        layer = f"layer_{{i}}_{direction}"
        rules += [
            Rename(f"weight_ih_l{{i}}{suffix}", f"{layer}/kernel", transform="linear"),
            Rename(f"weight_hh_l{{i}}{suffix}", f"{layer}/recurrent_kernel", transform="linear"),
            Rename(f"bias_ih_l{{i}}{suffix}", f"{layer}/bias", transform="sum"),
            Rename(f"bias_hh_l{{i}}{suffix}", f"{layer}/bias", transform="sum"),
        ]
    return tuple(rules)


def check_rules(rules: Sequence[Rename]) -> None:
    """Refuses rules that cannot be applied, before a file is opened.

    Raises:
      ValueError: naming the rule.
    """
    for rule in rules:
        if not isinstance(rule, Rename):
            raise ValueError(f"names has {rule!r}, which is not a Rename.")
        if rule.transform not in (None, *_TRANSPOSED_AXES, "reshape", "sum"):
            raise ValueError(
                f"{rule} has an unknown transform; use None, 'linear', 'conv', 'reshape' or 'sum'."
            )
        gaps = re.findall(_GAP, rule.pattern)
        if len({gap for gap in gaps if gap != "*"}) + gaps.count("*") != len(gaps):
            raise ValueError(f"{rule} has the same gap twice in its pattern.")
        if rule.path is not None:
            _fill_path(rule, dict.fromkeys(_list_numbers(rule), 0), [""] * gaps.count("*"))


def transform_shape(transform: Transform | None, shape: Shape, wanted: Shape) -> Shape:
    """Returns the shape of an array after its transformation.

    Args:
      transform: see `Rename`.
      shape: of the array in the file.
      wanted: of the parameter; it is returned if, and only if, the array can take it.
    """
    if transform in _TRANSPOSED_AXES:
        if len(shape) < 2:
            return shape
        shape = tuple(shape[axis] for axis in _TRANSPOSED_AXES[transform](len(shape)))
    if transform == "reshape" and math.prod(shape) == math.prod(wanted):
        return wanted
    if transform == "linear" and len(shape) == 2:
        splits = [(math.prod(wanted[:i]), math.prod(wanted[i:])) for i in range(1, len(wanted))]
        return wanted if shape in splits else shape
    return shape


def transform_array(transform: Transform | None, array: np.ndarray, shape: Shape) -> np.ndarray:
    """Transforms an array to the shape that `transform_shape` returned for it."""
    if transform in _TRANSPOSED_AXES and array.ndim >= 2:
        array = array.transpose(_TRANSPOSED_AXES[transform](array.ndim))
    return array.reshape(shape)


_TRANSPOSED_AXES: Mapping[str | None, Callable[[int], Shape]] = {
    "linear": lambda ndim: tuple(range(ndim))[::-1],
    "conv": lambda ndim: (*range(2, ndim), 1, 0),
}
_GAP = r"\*|\{[a-zA-Z]\w*\}"


@functools.cache
def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turns a pattern into a regular expression, whose groups are named after the gaps."""
    parts = re.split(f"({_GAP})", pattern)
    for i in range(1, len(parts), 2):
        parts[i] = f"(?P<_{i}>.*)" if parts[i] == "*" else f"(?P<{parts[i][1:-1]}>[0-9]{{1,9}})"
    return re.compile("".join(x if i % 2 else re.escape(x) for i, x in enumerate(parts)), re.DOTALL)


def _list_numbers(rule: Rename) -> list[str]:
    return [gap[1:-1] for gap in re.findall(_GAP, rule.pattern) if gap != "*"]


def _fill_path(
    rule: Rename, numbers: Mapping[str, int], texts: Sequence[str]
) -> tuple[str, int | None]:
    """Returns the path of a matched rule and the index in the stack, if it is stacked."""
    rest = list(texts)
    parts = re.split(f"({_GAP})", rule.path or "")
    named = {gap[1:-1] for gap in parts[1::2] if gap != "*"}
    if named - set(numbers) or parts.count("*") > len(rest):
        raise ValueError(f"{rule} has a gap in its path that its pattern does not have.")
    stacked = [number for name, number in numbers.items() if name not in named]
    if len(stacked) > 1:
        raise ValueError(f"{rule} leaves several numbers out of its path; only one can be stacked.")
    for i in range(1, len(parts), 2):
        parts[i] = rest.pop(0) if parts[i] == "*" else str(numbers[parts[i][1:-1]])
    return "".join(parts), (stacked[0] if stacked else None)
