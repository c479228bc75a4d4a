"""Configuration: the calls of an experiment function as a graph to read, set and store."""

from mmjax.config.arms import single_modality, single_task
from mmjax.config.auto import auto_config
from mmjax.config.build import build
from mmjax.config.config_table import Difference, Row, describe, difference, flatten
from mmjax.config.errors import ConfigError
from mmjax.config.serialize import dump, load
from mmjax.config.set_path import apply, put

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
