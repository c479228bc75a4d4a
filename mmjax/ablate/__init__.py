"""Ablations: studies of many arms and seeds, their statistics and their report."""

from typing import Any

from mmjax.ablate.space import Choice, LogUniform, Uniform
from mmjax.ablate.study import Study, Tuning

__all__ = ["Choice", "LogUniform", "Study", "Tuning", "Uniform", "load"]


def __getattr__(name: str) -> Any:
    """`load` needs pandas, which is imported only where it is asked for."""
    if name == "load":
        from mmjax.ablate.results import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
