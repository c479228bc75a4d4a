"""Deprecated alias of `mmjax.runs.teacher`; it goes with the next release."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Looks `trained` up in `mmjax.runs.teacher`, with a warning."""
    if name != "trained":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    from mmjax.runs.teacher import trained

    text = "mmjax.train.teacher is now mmjax.runs.teacher"
    warnings.warn(text, DeprecationWarning, stacklevel=2)
    return trained
