"""Configuration: the calls of an experiment function as a graph to read, set and store."""

from mmjax.config.arms import single_modality, single_task
from mmjax.config.auto import auto_config
from mmjax.config.build import build_config
from mmjax.config.config_table import (
    ConfigDifference,
    ConfigRow,
    find_config_differences,
    flatten_config,
    list_config_rows,
)
from mmjax.config.errors import ConfigError
from mmjax.config.serialize import dump_config, load_config
from mmjax.config.set_path import apply_setting, replace_value

__all__ = [
    "ConfigDifference",
    "ConfigError",
    "ConfigRow",
    "apply_setting",
    "auto_config",
    "build_config",
    "dump_config",
    "find_config_differences",
    "flatten_config",
    "list_config_rows",
    "load_config",
    "replace_value",
    "single_modality",
    "single_task",
]
