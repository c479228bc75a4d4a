"""A summary of what was inferred of a data set, printed once."""

import functools
import sys
import types
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from mmjax.console import print_text
from mmjax.data.dataset import Dataset, Task
from mmjax.types import Batch


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
    lines = [f"{data.name}: {sizes}"]
    for m, spec in data.modalities.items():
        coverage = _format_coverage("present", counts[m], examples)
        same = _describe_constants(constants.get(m, np.zeros(0, bool)))
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


def _describe_constants(constant: Bool[np.ndarray, " d"]) -> str:
    """Names the features, from 0 on, that do not vary; the text is empty if there are none."""
    columns = np.flatnonzero(constant)
    if not len(columns):
        return ""
    if len(constant) == 1:
        return "; constant in train"
    names = ", ".join(map(str, columns[:8])) + (", ..." if len(columns) > 8 else "")
    return f"; {len(columns)} of {len(constant)} features are constant in train: {names}"


def _format_coverage(word: str, count: int, examples: int) -> str:
    """Formats the percentage of training examples, unless it is all of them."""
    return "" if count == examples else f"; {word} in {count / examples:.1%} of train"
