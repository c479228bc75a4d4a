"""Deprecated alias of `mmjax.runs.teacher`; the next release removes it."""

from mmjax.deprecation import forward_names

__getattr__ = forward_names(__name__, {"trained": "mmjax.runs.teacher:trained"})
