"""Studies: many configurations and seeds, trained, compared and reported together.

Glossary:
  study: a base experiment with the axes along which it is varied, its seeds and its baseline.
  axis: one choice that the arms differ in, such as the fusion; each of its labels is a set of
    configuration changes.
  arm: one configuration of a study: a combination of labels, or a single-task or single-modality
    baseline.
  seed: the number that fixes initialization, shuffling and dropout of one training.
  replica: one training inside a program: a unit with one of its seeds. A program trains its
    replicas side by side under `vmap`.
  unit: one configuration that is trained with its seeds and gets one result: an arm or a trial.
  trial: one configuration of an arm that a hyperparameter search evaluates on validation data.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmjax.study.results import load
    from mmjax.study.search_space import Choice, LogUniform, Uniform
    from mmjax.study.study import Study, Tuning

__all__ = ["Choice", "LogUniform", "Study", "Tuning", "Uniform", "load"]

_MODULES = {
    "Choice": "search_space",
    "LogUniform": "search_space",
    "Study": "study",
    "Tuning": "study",
    "Uniform": "search_space",
    "load": "results",
}


def __getattr__(name: str) -> Any:
    """Imports a name on first use: `load` needs pandas, which `mmjax show` does not."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
