"""Deprecated alias of `mmjax.study`; it goes with the next release."""

import warnings
from typing import Any

from mmjax import study

__all__ = study.__all__


def __getattr__(name: str) -> Any:
    """Looks a name up in `mmjax.study`, with a warning."""
    if name not in study.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"mmjax.ablate.{name} is now mmjax.study.{name}", DeprecationWarning, stacklevel=2
    )
    return getattr(study, name)
