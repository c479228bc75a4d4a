"""The definition of a run, and how a stored one differs from the one that is asked for."""

from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

from mmjax import config as configs
from mmjax.config import references
from mmjax.config.absolute_paths import make_paths_absolute
from mmjax.runs import more_epochs


class StoredRun(NamedTuple):
    """The definition of a run, as it is stored.

    Attributes:
      name: the experiment's name.
      config: the resolved configuration, as JSON text.
      arms: {arm: its configuration as JSON text}.
      arms_function: `module:name` of the function that made the arms; None if unknown.
      seeds: the seeds.
    """

    name: str
    config: str
    arms: Mapping[str, str]
    arms_function: str | None
    seeds: tuple[int, ...]


def find_run_differences(stored: StoredRun, asked: StoredRun, own: ModuleType | None) -> list[str]:
    """Describes the differences of a stored run from the one asked for, one per line."""
    lines = []
    if stored.seeds != asked.seeds:
        lines.append(f"seeds: stored {stored.seeds}, asked {asked.seeds}")
    if list(stored.arms) != list(asked.arms):
        lines.append(f"arms: stored {list(stored.arms)}, asked {list(asked.arms)}")
    changed = _find_config_differences(stored.config, asked.config, own)
    if changed:  # The arms differ in the same paths again.
        return lines + changed
    for arm, config in asked.arms.items():
        if arm in stored.arms:
            changes = _find_config_differences(stored.arms[arm], config, own)
            lines += [f"{arm}: {change}" for change in changes]
    return lines


def _find_config_differences(old: str, new: str, own: ModuleType | None) -> list[str]:
    """Describes the differences of two stored configurations, one per line."""
    if old == new:
        return []
    # What the run asked for uses is executed anyway; the stored one may use no more than that.
    allow = sorted(references.list_foreign_modules(new))
    first, second = (
        make_paths_absolute(configs.load_config(text, allow=allow, own=own)) for text in (old, new)
    )
    return [
        f"{d.path or 'experiment'}: stored {d.first or 'nothing'}, asked {d.second or 'nothing'}"
        + (more_epochs.explain_refusal(first, second) if d.path == "epochs" else "")
        for d in configs.find_config_differences(first, second)
        if d.path != "epochs" or not more_epochs.has_more_epochs(first, second)
        if d.path != "sharding"  # it decides where arrays lie, not what they hold
    ]
