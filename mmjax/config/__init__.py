"""Configuration: the calls of an experiment function as a graph to read, set and store."""

from mmjax.config.arms import single_modality, single_task
from mmjax.config.auto import auto_config
from mmjax.config.build import build
from mmjax.config.errors import ConfigError
from mmjax.config.paths import apply, put
from mmjax.config.serialize import dump, load
from mmjax.config.table import Difference, Row, describe, difference, flatten

__all__ = [
    "ConfigError",
    "Difference",
    "Row",
    "apply",
    "auto_config",
    "build",
    "describe",
    "difference",
    "dump",
    "flatten",
    "load",
    "put",
    "single_modality",
    "single_task",
]
