"""The check that auxiliary objectives fit the tasks that they name."""

from collections.abc import Iterator
from typing import Any

from mmjax.data.dataset import Dataset, Task
from mmjax.model import Model


def check_objectives(model: Model, data: Dataset) -> None:
    """Refuses objectives of a task for whose targets they, or their heads, are not made.

    An objective's `needs_kinds` are the kinds of tasks that it can learn from, `needs_head` is the
    type of the model's head that it needs, `classes` the number of the task's classes, and `head` a
    head for the task.

    Args:
      model: the model.
      data: the data set; objectives refuse tasks that the model does not have by themselves.

    Raises:
      ValueError: naming the objective, the task and what would fit.
    """
    for name, objective in model.auxiliary.items():
        label = f"model.auxiliary.{name} ({type(objective).__name__})"
        for task in _list_tasks(objective):
            if task in model.heads:
                _check_head(label, objective, task, model.heads[task])
                _check_task(label, objective, task, data.tasks[task])


def _list_tasks(objective: Any) -> Iterator[str]:
    """Lists the tasks that an objective names by its attribute `task` or `tasks`."""
    if isinstance(task := getattr(objective, "task", None), str):
        yield task
    yield from getattr(objective, "tasks", None) or ()


def _check_head(label: str, objective: Any, name: str, head: Any) -> None:
    """Refuses an objective that does not understand the predictions of the model's head."""
    needed = getattr(objective, "needs_head", object)
    if not isinstance(head, needed):
        raise ValueError(
            f"{label} names the task {name!r}, whose head is {type(head).__name__}; it needs "
            f"{needed.__name__}. Change the head, or leave the objective out."
        )


def _check_task(label: str, objective: Any, name: str, task: Task) -> None:
    """Refuses an objective that cannot learn from the targets of a task."""
    kinds = getattr(objective, "needs_kinds", (task.kind,))
    if task.kind not in kinds:
        raise ValueError(
            f"{label} names the task {name!r}, whose kind is {task.kind!r}; name one of kind "
            f"{' or '.join(map(repr, kinds))}, or leave the objective out."
        )
    classes = getattr(objective, "classes", None)
    if classes is not None and task.shape:
        raise ValueError(
            f"{label} needs one class per example, but the task {name!r} has targets of shape "
            f"{task.shape}; name another task, or leave the objective out."
        )
    if classes is not None and classes != len(task.classes):
        raise ValueError(
            f"{label} has classes={classes}, but the task {name!r} has {len(task.classes)}; set "
            f"classes={len(task.classes)}."
        )
    head: Any = getattr(objective, "head", None)
    if hasattr(head, "check"):
        try:
            head.check(task, name)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
