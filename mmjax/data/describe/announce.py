"""A summary of what was inferred of a data set, printed once."""

import functools
import sys
import types
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from mmjax.data.dataset import Arrays, Dataset, Modality, Preparation, Source, Task
from mmjax.printing.console import print_text
from mmjax.types import Batch

_NEARLY_ALL = 0.99  # share of examples with one value of a feature that is hardly informative
_MIN_EXAMPLES = 100  # fewer do not show it
_MAX_EXAMPLES = 2_000  # looked at, spread over the training split
_MAX_FEATURES = 1000  # of a vector; more are measurements, not columns


def summarize_dataset(
    data: Dataset,
    counts: Mapping[str, int],
    train: Batch,
    constants: Mapping[str, Bool[np.ndarray, " d"]] = types.MappingProxyType({}),
) -> str:
    """Returns a line for the data set, and one for each modality and task.

    Args:
      data: the data set.
      counts: {modality: number of training examples that have it}.
      train: the targets and label masks of the training split.
      constants: {modality: which of its features have one value in all training examples}.
    """
    sizes = ", ".join(f"{len(source):,} {split}" for split, source in data.splits.items())
    examples = len(data.splits["train"])
    width = max(map(len, [*data.modalities, *data.tasks]))
    names = {m: _name_features(p) for m, p in data.preparations.items()}
    lines = [f"{data.name}: {sizes}"]
    for m, spec in data.modalities.items():
        coverage = _format_coverage("present", counts[m], examples)
        constant = constants.get(m, np.zeros(0, bool))
        same = _describe_features("constant in train", constant, names.get(m, ()))
        nearly = _find_nearly_constant(data.splits["train"], m, spec)
        if constant.shape == nearly.shape:
            nearly = nearly & ~constant
        same += _describe_features("nearly constant in train", nearly, names.get(m, ()))
        lines.append(f"  {m:{width}}  {spec.describe()}{coverage}{same}")
    for t, task in data.tasks.items():
        coverage = _format_coverage("labeled", int(train.labeled[t].sum()), examples)
        weights = _describe_weights(t, train)
        lines.append(f"  {t:{width}}  {_describe_task(t, task, train)}{coverage}{weights}")
    return "\n".join(lines)


@functools.lru_cache(maxsize=256)
def announce_once(text: str) -> None:
    """Prints a text to the standard error stream unless it was printed before."""
    print_text(text, file=sys.stderr)


def _describe_task(name: str, task: Task, train: Batch) -> str:
    if task.kind == "regression":
        y = train.targets[name][train.labeled[name]].astype(np.float64)
        unit = f" {task.unit}" if task.unit else ""
        kind = f"regression of {task.shape[0]} numbers" if task.shape else "regression"
        return f"{kind}, mean {y.mean():.4g}{unit}, standard deviation {y.std():.4g}{unit}"
    if task.kind == "depth":
        return f"depth, {' x '.join(map(str, task.shape))}{f' in {task.unit}' if task.unit else ''}"
    names = ", ".join(task.classes[:8]) + (", ..." if len(task.classes) > 8 else "")
    return f"{task.kind}, {len(task.classes)} classes: {names}"


def _describe_weights(name: str, train: Batch) -> str:
    """Formats the range of the weights of a task's labels; the text is empty if it has none."""
    if name not in train.weights:
        return ""
    weights = train.weights[name][train.labeled[name]]
    return f"; weights {weights.min():.4g} to {weights.max():.4g}"


def _describe_features(what: str, is_named: Bool[np.ndarray, " d"], names: Sequence[str]) -> str:
    """Lists the features of which something is true, by name or from 0 on; "" if there are none."""
    columns = np.flatnonzero(is_named)
    if not len(columns):
        return ""
    if len(is_named) == 1:
        return f"; {what}"
    known = names if len(names) == len(is_named) else range(len(is_named))
    listed = ", ".join(str(known[i]) for i in columns[:8]) + (", ..." if len(columns) > 8 else "")
    return f"; {len(columns)} of {len(is_named)} features are {what}: {listed}"


def _name_features(preparation: Preparation) -> list[str]:
    """Names the features of a kind with one number per column, and the indicators of gaps."""
    columns = getattr(preparation.kind, "columns", ())
    columns = [columns] if isinstance(columns, str) else list(columns)
    gaps = preparation.learned.get("indicators", ())
    return [*columns, *(f"gap of {columns[i]}" for i in gaps)]


def _find_nearly_constant(source: Source, name: str, modality: Modality) -> Bool[np.ndarray, " d"]:
    """Finds the numbers of vectors in memory that have one value in nearly all examples."""
    none = np.zeros(0, bool)
    if not isinstance(source, Arrays) or modality.sequence or len(modality.shape) != 1:
        return none
    x = np.asarray(source.batch.inputs[name])
    rows = np.flatnonzero(source.batch.present[name])
    if len(rows) < _MIN_EXAMPLES or x.dtype.kind != "f" or x.shape[1] > _MAX_FEATURES:
        return none
    x = x[rows[np.linspace(0, len(rows) - 1, min(len(rows), _MAX_EXAMPLES)).astype(int)]]
    # A value that most examples have is in the middle of the sorted ones.
    middle = np.partition(x, len(x) // 2, axis=0)[len(x) // 2]
    return np.asarray((x == middle).mean(axis=0) >= _NEARLY_ALL)


def _format_coverage(word: str, count: int, examples: int) -> str:
    """Formats the percentage of training examples, unless it is all of them."""
    return "" if count == examples else f"; {word} in {count / examples:.1%} of train"
