"""The arms of a study: each combination of labels as a configuration, and the baselines."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, public_names
from mmjax.study.study import Axis, Changes, Study

LONGEST = 120  # characters in a name; it must do as a directory's


class Arm(NamedTuple):
    """One configuration of a study.

    Attributes:
      config: the configuration.
      labels: {axis: label}; {} for the single baselines.
      role: "arm", "single_task" or "single_modality".
      of: the task or modality of a single baseline.
      changes: {path: value as text}, what was set in the base experiment.
    """

    config: fdl.Buildable
    labels: dict[str, str]
    role: str
    of: str | None
    changes: dict[str, str]


def make_arms(study: Study, base: fdl.Buildable) -> dict[str, Arm]:
    """{name: arm}: the grid first, in the order of the axes, then the single baselines.

    Args:
      study: the study.
      base: its base experiment, with the command line's settings.

    Raises:
      ConfigError: a bad path or value, labels that make no good names, or no arm.
    """
    axes = {axis: labelled(axis, values) for axis, values in study.axes.items()}
    arms: dict[str, Arm] = {}
    for combination in itertools.product(*axes.values()):
        labels = dict(zip(axes, combination, strict=True))
        if study.leave_out is not None and study.leave_out(labels):
            continue
        changes: dict[str, str] = {}
        for axis, label in labels.items():
            add_changes(changes, axes[axis][label], axis)
        name = ",".join(f"{short(axis, axes)}={slug(label)}" for axis, label in labels.items())
        if name in arms:
            raise ConfigError(f"two arms are called {name}; give their axes labels that differ.")
        if len(name) > LONGEST:
            raise ConfigError(
                f"the arm {name} has a name of more than {LONGEST} characters; give its axes short "
                "labels: {axis: {label: {path: value}}}."
            )
        arms[name] = Arm(changed(base, changes, name), labels, "arm", None, changes)
    if not arms:
        raise ConfigError("the study has no arm: give it axes, and leave some combination in.")
    return arms | singles(study, base)


def labelled(axis: str, values: Axis) -> dict[str, Changes]:
    """{label: changes} of an axis in either form."""
    found: dict[str, Changes]
    if isinstance(values, Mapping):
        found = {str(label): dict(changes) for label, changes in values.items()}
    else:
        found = {str(value): {axis: str(value)} for value in values}
    if not found or len(found) < len(values):
        raise ConfigError(f"the axis '{axis}' has no values, or one of them twice.")
    return found


def add_changes(changes: dict[str, str], more: Changes, axis: str) -> None:
    """Adds an axis's changes to those of the axes before it."""
    for path, value in more.items():
        if path in changes:
            raise ConfigError(f"two axes set {path}; the later one is '{axis}'. Join them to one.")
        changes[path] = str(value)


def changed(base: fdl.Buildable, changes: Changes, name: str) -> fdl.Buildable:
    """The base experiment with an arm's changes."""
    for path, value in changes.items():
        try:
            base = configs.apply(base, f"{path}={value}")
        except ConfigError as error:
            raise ConfigError(f"arm {name}: {str(error).removeprefix('--set ')}") from error
    return base


def singles(study: Study, base: fdl.Buildable) -> dict[str, Arm]:
    """The base experiment with each of its tasks, and with each of its modalities, alone.

    One task has nothing to balance, so it has equal weights; where the base monitors another
    task's metric, it monitors its own loss.
    """
    arms: dict[str, Arm] = {}
    if study.single_task:
        for task in configs.single_task(base):
            if task != "all":
                settings = alone(base.model.heads, "model.heads", task) | {"balancer": "equal()"}
                if monitor(base).partition("/")[0] not in (task, "loss"):
                    settings["monitor"] = "loss"
                config = changed(base, settings, f"single_task={task}")
                arms[f"single_task={task}"] = Arm(config, {}, "single_task", task, settings)
    if study.single_modality:
        for modality in configs.single_modality(base):
            if modality != "all":
                settings = alone(base.model.encoders, "model.encoders", modality)
                name = f"single_modality={modality}"
                arms[name] = Arm(
                    changed(base, settings, name), {}, "single_modality", modality, settings
                )
    return arms


def alone(parts: Mapping[str, Any], path: str, kept: str) -> dict[str, str]:
    """The changes that leave one of some parts."""
    return {f"{path}.{name}": "None" for name in parts if name != kept}


def monitor(config: fdl.Buildable) -> str:
    """What an experiment monitors."""
    return str(config.__arguments__.get("monitor", "loss"))


def baseline_name(study: Study, arms: Mapping[str, Arm]) -> str:
    """The name of the baseline arm.

    Raises:
      ConfigError: it names no axis or label of the study, or an arm that is left out.
    """
    axes = {axis: list(labelled(axis, values)) for axis, values in study.axes.items()}
    for axis, label in study.baseline.items():
        if axis not in axes:
            raise ConfigError(f"the baseline names the axis '{axis}'; there are {list(axes)}.")
        if label not in axes[axis]:
            raise ConfigError(f"the baseline's {axis} is '{label}'; there are {axes[axis]}.")
    wanted = {axis: values[0] for axis, values in axes.items()} | dict(study.baseline)
    found = [name for name, arm in arms.items() if arm.role == "arm" and arm.labels == wanted]
    if not found:
        raise ConfigError(f"the baseline {wanted} is no arm of the study; it is left out.")
    return found[0]


def primary_metric(
    study: Study, base: fdl.Buildable, directions: Mapping[str, str]
) -> tuple[str, str]:
    """The study's metric and its direction.

    Raises:
      ConfigError: it is none of the tasks' metrics, which the message names.
    """
    metric = study.metric or monitor(base)
    known = sorted(directions)
    if metric not in directions:
        origin = "the study's metric" if study.metric else "what the experiment monitors"
        near = public_names.did_you_mean(metric, known)
        raise ConfigError(f"{origin} is '{metric}'; metric= must be one of {known}.{near}")
    return metric, directions[metric]


def slug(label: str) -> str:
    """A label as a part of a file's name: pcgrad() -> pcgrad, cagrad(c=0.4) -> cagrad_c=0.4."""
    return re.sub(r"[^\w.+=-]+", "_", label.replace("()", "")).strip("_.") or "_"


def short(axis: str, axes: Sequence[str] | Mapping[str, Any]) -> str:
    """The last part of an axis's name, where no other axis has it."""
    last = axis.rpartition(".")[2]
    return slug(last if sum(a.rpartition(".")[2] == last for a in axes) == 1 else axis)
