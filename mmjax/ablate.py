"""Deprecated alias of `mmjax.study`; the next release removes it."""

from mmjax import study
from mmjax.deprecation import forward_names

__getattr__ = forward_names(__name__, {name: f"mmjax.study:{name}" for name in study.__all__})
