"""Samplers: the shares of classes or tasks in the training batches.

The batches are a pure function of (seed, epoch), as they are without a sampler: any step's batch is
known from its number, in every process. An epoch keeps its number of steps. Samplers
group examples by the labels of the training split.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mmjax.data.dataset import Dataset, Task
from mmjax.data.sampling.grouped_order import SampleGroups
from mmjax.data.sampling.task_labels import TaskLabels, read_task_labels


@runtime_checkable
class Sampler(Protocol):
    """Groups the training examples and says the share of each group in a batch."""

    def list_tasks(self, tasks: Sequence[str]) -> Sequence[str]:
        """Lists the tasks whose labels it needs.

        Args:
          tasks: those of the model.
        """
        ...

    def form_groups(
        self, labels: Mapping[str, TaskLabels], tasks: Mapping[str, Task]
    ) -> SampleGroups:
        """Returns the groups.

        Args:
          labels: {task: labels of the training split} of the tasks that it lists.
          tasks: the tasks of the data set.

        Raises:
          ValueError: if the sampler does not fit the tasks or the labels.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Stratified:
    """Gives every batch the training split's shares of classes, rounded up or down.

    Every example comes at most once per epoch, as without a sampler. Examples without a label of
    the task are a class of their own.

    Attributes:
      task: a classification or a task of ordered classes.

    Example:
      >>> labels = TaskLabels(np.array([0, 0, 0, 1]), np.ones(4, bool))
      >>> tasks = {"pet": Task("classification", ("cat", "dog"))}
      >>> Stratified("pet").form_groups({"pet": labels}, tasks).shares
      array([0.75, 0.25])
    """

    task: str

    def list_tasks(self, tasks: Sequence[str]) -> Sequence[str]:
        """Returns the task."""
        return [self.task]

    def form_groups(
        self, labels: Mapping[str, TaskLabels], tasks: Mapping[str, Task]
    ) -> SampleGroups:
        """Returns a group per class that occurs, and one of the examples without a label."""
        _check_has_classes("Stratified", self.task, tasks[self.task])
        targets, labeled = labels[self.task]
        _, group, counts = np.unique(
            np.where(labeled, targets, -1), return_inverse=True, return_counts=True
        )
        return SampleGroups(group.reshape(-1), counts / counts.sum())


@dataclasses.dataclass(frozen=True)
class ClassBalanced:
    """Gives every batch the same number of examples of each class, rounded up or down.

    Examples of rare classes come several times per epoch, and of frequent ones only some; the next
    epoch draws others. Classes without training labels, and examples without a label of the task,
    are not drawn.

    Attributes:
      task: a classification or a task of ordered classes.

    Example:
      >>> labels = TaskLabels(np.array([0, 0, 0, 1]), np.ones(4, bool))
      >>> tasks = {"pet": Task("classification", ("cat", "dog"))}
      >>> ClassBalanced("pet").form_groups({"pet": labels}, tasks).shares
      array([0.5, 0.5])
    """

    task: str

    def list_tasks(self, tasks: Sequence[str]) -> Sequence[str]:
        """Returns the task."""
        return [self.task]

    def form_groups(
        self, labels: Mapping[str, TaskLabels], tasks: Mapping[str, Task]
    ) -> SampleGroups:
        """Returns a group per class that occurs."""
        _check_has_classes("ClassBalanced", self.task, tasks[self.task])
        targets, labeled = labels[self.task]
        if not labeled.any():
            raise ValueError(f"ClassBalanced: no training example has a label of {self.task!r}.")
        group = np.full(len(labeled), -1)
        classes, group[labeled] = np.unique(targets[labeled], return_inverse=True)
        return SampleGroups(group, np.full(len(classes), 1 / len(classes)))


@dataclasses.dataclass(frozen=True)
class TaskMixture:
    """Mixes tasks that have examples of their own, by ratios or by a temperature.

    A task of n examples gets a share of every batch, rounded up or down, that is proportional to
    its ratio, or to n^(1/T): T = 1 keeps the sizes, and T → ∞ makes the shares equal. Examples of a
    task with more than its share come several times per epoch. Examples without a label of these
    tasks are not drawn.

    Source of the temperature: Raffel et al., JMLR 2020 (arXiv:1910.10683), section 3.5.2.

    Attributes:
      ratios: {task: ratio}; None: by the temperature, all tasks of the model. Tasks that the model
        does not have are left out.
      temperature: T, at least 1 and maybe infinite.

    Example:
      >>> sides = np.array([True, True, True, True, False])
      >>> labels = {"a": TaskLabels(np.zeros(5), sides), "b": TaskLabels(np.zeros(5), ~sides)}
      >>> TaskMixture(temperature=2.0).form_groups(labels, {}).shares.round(3)  # 2 to 1
      array([0.667, 0.333])
    """

    ratios: Mapping[str, float] | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 1:
            raise ValueError(
                f"TaskMixture.temperature is {self.temperature}; it must be 1 or more."
            )
        if self.ratios is None:
            return
        if self.temperature != 1:
            raise ValueError("TaskMixture has ratios and a temperature; give only one of them.")
        if not self.ratios or not all(0 < r < math.inf for r in self.ratios.values()):
            raise ValueError(
                f"TaskMixture.ratios is {dict(self.ratios)}; give at least one, all positive."
            )

    def list_tasks(self, tasks: Sequence[str]) -> Sequence[str]:
        """Lists the tasks with a ratio that the model has, or all of the model."""
        return sorted(tasks if self.ratios is None else set(tasks) & set(self.ratios))

    def form_groups(
        self, labels: Mapping[str, TaskLabels], tasks: Mapping[str, Task]
    ) -> SampleGroups:
        """Returns a group per task: the examples that have a label of it."""
        if not labels:
            given = sorted(self.ratios or ())
            raise ValueError(f"TaskMixture.ratios has {given}, none of the model's tasks.")
        names = sorted(labels)
        labeled = np.stack([labels[t].labeled for t in names])
        if (twice := labeled.sum(axis=0) > 1).any():
            row = int(np.flatnonzero(twice)[0])
            both = [t for t, has in zip(names, labeled[:, row], strict=True) if has]
            raise ValueError(
                f"TaskMixture: training row {row} has labels of {both[0]!r} and {both[1]!r}, which "
                "must have examples of their own; give only one of them a ratio."
            )
        sizes = labeled.sum(axis=1)
        if not sizes.all():
            empty = names[int(np.flatnonzero(sizes == 0)[0])]
            raise ValueError(f"TaskMixture: no training example has a label of {empty!r}.")
        wanted = sizes ** (1 / self.temperature)
        if self.ratios is not None:
            wanted = np.array([self.ratios[t] for t in names], np.float64)
        group = np.where(labeled.any(axis=0), labeled.argmax(axis=0), -1)
        return SampleGroups(group, wanted / wanted.sum())


def _check_has_classes(sampler: str, name: str, task: Task) -> None:
    """Refuses a task whose examples do not have one class each."""
    if task.kind not in ("classification", "ordinal") or task.shape:
        kind = "has soft labels" if task.shape else f"is a {task.kind}"
        raise ValueError(
            f"{sampler}({name!r}): the task {kind}; a sampler needs one class per example. Name "
            "another task, or add a column of classes as one."
        )


def form_training_groups(
    sampler: Sampler, data: Dataset, modalities: Collection[str], tasks: Collection[str]
) -> SampleGroups:
    """Returns the groups of the training split.

    Args:
      sampler: the sampler.
      data: the data set.
      modalities: those of the model; examples without any of them count as unlabeled.
      tasks: those of the model.

    Raises:
      ValueError: if the sampler names a task that the data set does not have, or does not fit.
    """
    names = list(sampler.list_tasks(sorted(tasks)))
    for name in names:
        if name not in data.tasks:
            raise ValueError(
                f"sampler: {data.name} has no task {name!r}, only {sorted(data.tasks)}."
            )
    labels = read_task_labels(data.splits["train"], tuple(sorted(modalities)), tuple(sorted(names)))
    return sampler.form_groups(labels, data.tasks)
