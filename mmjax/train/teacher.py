"""Deprecated alias of `mmjax.runs.teacher`; it goes with the next release."""

from mmjax.deprecation import forward_names

__getattr__ = forward_names(__name__, {"trained": "mmjax.runs.teacher:trained"})
