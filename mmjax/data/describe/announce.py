"""What was inferred of a data set, in a few lines."""

import functools
import sys
from collections.abc import Mapping

import numpy as np

from mmjax.console import print_text
from mmjax.data.dataset import Dataset, Task
from mmjax.types import Batch


def summary(data: Dataset, counts: Mapping[str, int], train: Batch) -> str:
    """A line for the data set, and one for each modality and task.

    Args:
      data: the data set.
      counts: {modality: how many training examples have it}.
      train: the training split's targets, and where they are labels.
    """
    sizes = ", ".join(f"{len(source):,} {split}" for split, source in data.splits.items())
    examples = len(data.splits["train"])
    lines = [
        *(
            (m, spec.describe() + _share("present", counts[m], examples))
            for m, spec in data.modalities.items()
        ),
        *(
            (t, _task(t, task, train) + _share("labeled", int(train.labeled[t].sum()), examples))
            for t, task in data.tasks.items()
        ),
    ]
    width = max(len(name) for name, _ in lines)
    head = f"{data.name}: {sizes}"
    return "\n".join([head, *(f"  {name:{width}}  {text}" for name, text in lines)])


@functools.lru_cache(maxsize=256)
def announce(text: str) -> None:
    """Prints a text to the error stream, the first time that it comes up."""
    print_text(text, file=sys.stderr)


def _task(name: str, task: Task, train: Batch) -> str:
    if task.kind == "regression":
        here = train.targets[name][train.labeled[name]].astype(np.float64)
        unit = f" {task.unit}" if task.unit else ""
        return (
            f"regression, mean {here.mean():.4g}{unit}, standard deviation {here.std():.4g}{unit}"
        )
    shown = ", ".join(task.classes[:8]) + (", ..." if len(task.classes) > 8 else "")
    return f"{task.kind}, {len(task.classes)} classes: {shown}"


def _share(word: str, count: int, examples: int) -> str:
    return "" if count == examples else f"; {word} in {count / examples:.1%} of train"
