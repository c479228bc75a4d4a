"""Makes the arms of a study: every combination of labels as a configuration, and the baselines."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax.config import ConfigError, public_names
from mmjax.study.study import Axis, Changes, Study

_MAX_NAME_LENGTH = 120  # characters; the name of an arm is also the name of its directory


class Arm(NamedTuple):
    """One configuration of a study.

    Attributes:
      config: the configuration.
      labels: {axis: label}; {} for single-task and single-modality baselines.
      role: "arm", "single_task" or "single_modality".
      of: the task or modality of a single-task or single-modality baseline.
      changes: {path: value as text} of what differs from the base experiment.
    """

    config: fdl.Buildable
    labels: dict[str, str]
    role: str
    of: str | None
    changes: dict[str, str]


def make_study_arms(study: Study, base: fdl.Buildable) -> dict[str, Arm]:
    """Returns {name: arm}: the grid in the order of the axes, then the single baselines.

    Args:
      study: the study.
      base: its base experiment, with the settings of the command line.

    Raises:
      ConfigError: a path, value or label is invalid, or the study has no arms.
    """
    axes = {axis: _label_values(axis, values) for axis, values in study.axes.items()}
    arms: dict[str, Arm] = {}
    for combination in itertools.product(*axes.values()):
        labels = dict(zip(axes, combination, strict=True))
        if study.leave_out is not None and study.leave_out(labels):
            continue
        changes = _join_changes({axis: axes[axis][label] for axis, label in labels.items()})
        name = _name_arm(labels, arms)
        arms[name] = Arm(_apply_changes(base, changes, name), labels, "arm", None, changes)
    if not arms:
        raise ConfigError(
            "the study has no arms: define axes, and make sure that leave_out does not exclude "
            "every combination."
        )
    return arms | _make_single_baselines(study, base)


def _name_arm(labels: Mapping[str, str], others: Collection[str]) -> str:
    """Returns the name of an arm of the grid, "axis=label,axis=label".

    Raises:
      ConfigError: another arm has the name, or it is too long.
    """
    parts = []
    for axis, label in labels.items():
        parts.append(f"{_shorten_axis(axis, labels)}={_to_file_name(label)}")
    name = ",".join(parts)
    if name in others:
        raise ConfigError(f"two arms have the name {name}; give their axes different labels.")
    if len(name) > _MAX_NAME_LENGTH:
        raise ConfigError(
            f"the name of the arm {name} has more than {_MAX_NAME_LENGTH} characters; give its "
            "axes short labels: {axis: {label: {path: value}}}."
        )
    return name


def _label_values(axis: str, values: Axis) -> dict[str, Changes]:
    """Returns {label: changes} of an axis given in either form."""
    changes_of: dict[str, Changes] = {}
    if isinstance(values, Mapping):
        for label, changes in values.items():
            changes_of[str(label)] = dict(changes)
    else:
        for value in values:
            changes_of[str(value)] = {axis: str(value)}
    if not changes_of or len(changes_of) < len(values):
        raise ConfigError(f"the axis '{axis}' has no values or a duplicate value.")
    return changes_of


def _join_changes(by_axis: Mapping[str, Changes]) -> dict[str, str]:
    """Joins the changes of all axes, {axis: {path: value}}, which must set different paths."""
    joined: dict[str, str] = {}
    for axis, changes in by_axis.items():
        for path, value in changes.items():
            if path in joined:
                raise ConfigError(
                    f"two axes set {path} (the second one is '{axis}'); merge them into one axis."
                )
            joined[path] = str(value)
    return joined


def _apply_changes(base: fdl.Buildable, changes: Changes, name: str) -> fdl.Buildable:
    """Applies the changes of the arm `name` to the base experiment."""
    for path, value in changes.items():
        try:
            base = configs.apply_setting(base, f"{path}={value}")
        except ConfigError as error:
            raise ConfigError(f"arm {name}: {str(error).removeprefix('--set ')}") from error
    return base


def _make_single_baselines(study: Study, base: fdl.Buildable) -> dict[str, Arm]:
    """Returns the arms that keep one task, and those that keep one modality, of the base.

    A single task has nothing to balance, so it gets equal weights. If the base experiment monitors
    a metric of another task, the arm monitors its own loss.
    """
    arms: dict[str, Arm] = {}
    if study.single_task:
        for task in configs.single_task(base):
            if task != "all":
                settings = _remove_others(base.model.heads, "model.heads", task) | {
                    "balancer": "equal()"
                }
                if get_monitored_metric(base).partition("/")[0] not in (task, "loss"):
                    settings["monitor"] = "loss"
                arms |= _make_baseline(base, settings, "single_task", task)
    if study.single_modality:
        for modality in configs.single_modality(base):
            if modality != "all":
                settings = _remove_others(base.model.encoders, "model.encoders", modality)
                arms |= _make_baseline(base, settings, "single_modality", modality)
    return arms


def _make_baseline(
    base: fdl.Buildable, settings: dict[str, str], role: str, of: str
) -> dict[str, Arm]:
    """Makes a single-task or single-modality arm: {its name: the arm}."""
    name = f"{role}={of}"
    return {name: Arm(_apply_changes(base, settings, name), {}, role, of, settings)}


def _remove_others(parts: Mapping[str, Any], path: str, remaining: str) -> dict[str, str]:
    """Returns the changes that remove all of some parts except one."""
    return {f"{path}.{name}": "None" for name in parts if name != remaining}


def get_monitored_metric(config: fdl.Buildable) -> str:
    """Returns the name of the metric that an experiment monitors."""
    return str(config.__arguments__.get("monitor", "loss"))


def find_baseline(study: Study, arms: Mapping[str, Arm]) -> str:
    """Returns the name of the baseline arm.

    Raises:
      ConfigError: the baseline names an unknown axis or label, or an arm that is left out.
    """
    axes = {axis: list(_label_values(axis, values)) for axis, values in study.axes.items()}
    for axis, label in study.baseline.items():
        if axis not in axes:
            raise ConfigError(
                f"the baseline names the axis '{axis}'; the axes are {', '.join(axes)}."
            )
        if label not in axes[axis]:
            raise ConfigError(
                f"the baseline's label of {axis} is '{label}'; the labels are "
                f"{', '.join(axes[axis])}."
            )
    # Axes that the baseline does not name have their first label.
    labels = {axis: values[0] for axis, values in axes.items()} | dict(study.baseline)
    for name, arm in arms.items():
        if arm.role == "arm" and arm.labels == labels:
            return name
    raise ConfigError(
        f"the baseline {labels} is excluded by leave_out; choose another baseline, or keep it."
    )


def choose_primary_metric(
    study: Study, base: fdl.Buildable, directions: Mapping[str, str]
) -> tuple[str, str]:
    """Returns the study's metric and its direction ("max" or "min").

    Raises:
      ConfigError: no task has that metric. The message lists the known ones.
    """
    metric = study.metric or get_monitored_metric(base)
    known = sorted(directions)
    if metric not in directions:
        origin = "the study's metric" if study.metric else "the metric that the experiment monitors"
        near = public_names.did_you_mean(metric, known)
        raise ConfigError(f"{origin} is '{metric}'; metric= must be one of {known}.{near}")
    return metric, directions[metric]


def _to_file_name(label: str) -> str:
    """Converts a label to a part of a file name: pcgrad() -> pcgrad, cagrad(c=0.4) -> cagrad_c=0.4.

    Example:
      >>> _to_file_name("cagrad(c=0.4)")
      'cagrad_c=0.4'
    """
    return re.sub(r"[^\w.+=-]+", "_", label.replace("()", "")).strip("_.") or "_"


def _shorten_axis(axis: str, axes: Sequence[str] | Mapping[str, Any]) -> str:
    """Returns the last part of an axis's name if no other axis ends in it, or else all of it."""
    last = axis.rpartition(".")[2]
    endings = [other.rpartition(".")[2] for other in axes]
    return _to_file_name(last if endings.count(last) == 1 else axis)
