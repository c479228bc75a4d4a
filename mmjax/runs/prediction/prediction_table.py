"""Predictions of all tasks, as types by the kind of task and as one table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.runs.prediction.place_predictions import PixelPrediction, TagPrediction
from mmjax.runs.prediction.predictions import (
    ClassPrediction,
    Column,
    DepthPrediction,
    NumberPrediction,
    OrdinalPrediction,
    SubsetPrediction,
)

TaskPrediction = (
    ClassPrediction | SubsetPrediction | NumberPrediction | TagPrediction | PixelPrediction
)
PREDICTION_OF_KIND: dict[str, type[TaskPrediction]] = {
    "classification": ClassPrediction,
    "ordinal": OrdinalPrediction,
    "multilabel": SubsetPrediction,
    "regression": NumberPrediction,
    "sequence": TagPrediction,
    "segmentation": PixelPrediction,
    "depth": DepthPrediction,
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of every task for some examples.

    Attributes:
      tasks: {task: its predictions}, whose type depends on the kind of task.
      keys: {column: values} of the examples' columns that the model did not read.
    """

    tasks: Mapping[str, TaskPrediction]
    keys: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    def __getitem__(self, task: str) -> Any:
        """Returns the predictions of a task."""
        return self.tasks[task]

    def make_columns(self) -> list[Column]:
        """Returns the columns of all tasks, without the keys."""
        columns: list[Column] = []
        for task, prediction in self.tasks.items():
            columns += prediction.make_columns(task)
        return columns

    def to_frame(self) -> Any:
        """Makes a pandas DataFrame: the key columns, then one group of columns per task.

        Raises:
          ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install 'mmjax[ablate]'.") from error
        columns: dict[str, Any] = {name: list(values) for name, values in self.keys.items()}
        for name, values, kind in self.make_columns():
            columns[name] = values if isinstance(kind, str) else list(values)
        return pd.DataFrame(columns)


def concatenate_predictions(parts: Sequence[Predictions]) -> Predictions:
    """Concatenates the predictions of several batches; classes and units stay as they are."""
    tasks = {}
    for task, first in parts[0].tasks.items():
        make: Any = type(first)
        fields = {}
        for name, value in first._asdict().items():
            values = [getattr(part.tasks[task], name) for part in parts]
            fields[name] = np.concatenate(values) if isinstance(value, np.ndarray) else value
        tasks[task] = make(**fields)
    keys = {name: [key for part in parts for key in part.keys[name]] for name in parts[0].keys}
    return Predictions(tasks, keys)
