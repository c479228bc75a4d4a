"""Ablations: studies of many arms and seeds, their statistics and their report."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmjax.study.results import load
    from mmjax.study.search_space import Choice, LogUniform, Uniform
    from mmjax.study.study import Study, Tuning

__all__ = ["Choice", "LogUniform", "Study", "Tuning", "Uniform", "load"]

_HOMES = {
    "Choice": "search_space",
    "LogUniform": "search_space",
    "Study": "study",
    "Tuning": "study",
    "Uniform": "search_space",
    "load": "results",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is asked for: `load` needs pandas, and `mmjax show` none of it."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
