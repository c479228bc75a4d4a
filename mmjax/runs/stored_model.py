"""The model of a stored experiment, without its data, optimizer, balancer and objectives.

What predictions do not need is removed from the stored configuration before anything is looked up
in it. So a run whose data come from a function of its experiment's own file can predict without
trust in that file and without the data.
"""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fiddle as fdl

from mmjax import config as configs
from mmjax import files
from mmjax.config import ConfigError, check_calls, trust
from mmjax.config.trust import Trust
from mmjax.model import Model
from mmjax.old_names import find_current_name
from mmjax.runs.experiment_code import restore_modules_afterwards
from mmjax.runs.stored_experiment import load_stored_code
from mmjax.runs.stored_settings import parse_settings

_EXPERIMENT = ("Experiment", ("mmjax", "mmjax.experiment"))
_MODEL = ("Model", ("mmjax", "mmjax.model"))
_ARGUMENTS = "Attr(name='argument_names')"


class StoredModel(NamedTuple):
    """A model read from the files of its run.

    Attributes:
      model: the model, without auxiliary objectives.
      compute_dtype: the type of its activations.
      batch_size: examples per step of evaluation.
    """

    model: Model
    compute_dtype: str
    batch_size: int


def build_stored_model(root: Path, path: Path, text: str, permitted: Trust) -> StoredModel | None:
    """Builds the model of a stored experiment; nothing else of the experiment is built.

    Args:
      root: the directory of the run or study, which holds the experiment's code.
      path: the file of the configuration, for messages.
      text: the configuration.
      permitted: what the user permits.

    Returns:
      None if the experiment is made by a function of its own file, and must be built as a whole.

    Raises:
      ConfigError: the configuration is damaged, or needs what the user does not permit.
    """
    with files.name_damaged_file(path):
        model_text, settings = extract_model_config(text), parse_settings(text)
        dtype = ast.literal_eval(settings.get("compute_dtype", "'float32'"))
        batch_size = ast.literal_eval(settings.get("eval_batch_size", "256"))
        if dtype not in ("float32", "bfloat16") or type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"compute_dtype is {dtype!r} and eval_batch_size is {batch_size!r}")
    if model_text is None:
        return None
    with restore_modules_afterwards():
        fix = "If you trust it, pass allow_code=True (mmjax predict: --allow-code)."
        code = load_stored_code(root, [model_text], permitted, fix)
        try:
            config = configs.load_config(model_text, allow=code.allow, own=code.own)
            if isinstance(config, fdl.Config) and fdl.get_callable(config) is Model:
                check_calls.check_fields(config, "model")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        with trust.open_stored_run(permitted):
            model = configs.build_config(config, at="model")
    if not isinstance(model, Model):
        raise ConfigError(f"{path}: the stored configuration does not make a model.")
    return StoredModel(model, dtype, batch_size)


def extract_model_config(text: str) -> str | None:
    """Returns the part of a stored configuration that makes the model, as a configuration.

    Its auxiliary objectives are removed. None if the configuration is not a call of `Experiment`.
    """
    data = json.loads(text)
    objects = data["objects"]
    experiment = _resolve(data["root"], objects)
    if not _calls(experiment, _EXPERIMENT, objects):
        return None
    root = dict(experiment["items"])["Attr(name='model')"]
    model = _resolve(root, objects)
    if _calls(model, _MODEL, objects):
        root = _drop_argument(model, "auxiliary", objects)
    needed: dict[str, Any] = {}
    _collect_objects(root, objects, needed)
    return json.dumps(data | {"root": root, "objects": needed})


def _resolve(value: Any, objects: Mapping[str, Any]) -> Any:
    """Returns the object that a reference stands for, and other values as they are."""
    return objects[value["key"]] if value["type"] == "ref" else value


def _calls(node: Any, function: tuple[str, tuple[str, ...]], objects: Mapping[str, Any]) -> bool:
    """Checks whether a node is a call of a function of mmjax."""
    kind = node["type"]
    if not isinstance(kind, dict) or kind["name"] != "Config":
        return False
    called = dict(_resolve(node["metadata"], objects)["items"])["Attr(name='fn_or_cls')"]
    module, name = find_current_name(called["module"], called["name"])
    return name == function[0] and module in function[1]


def _drop_argument(node: Any, name: str, objects: Mapping[str, Any]) -> Any:
    """Returns a call without one of its arguments."""
    items = [item for item in node["items"] if item[0] != f"Attr(name='{name}')"]
    metadata = _resolve(node["metadata"], objects)
    fields = []
    for element, value in metadata["items"]:
        if element == _ARGUMENTS:
            names = _resolve(value, objects)
            kept = [item for _, item in names["items"] if item != name]
            value = names | {"items": [[f"Index(index={i})", v] for i, v in enumerate(kept)]}
        fields.append([element, value])
    return node | {"items": items, "metadata": metadata | {"items": fields}}


def _collect_objects(value: Any, objects: Mapping[str, Any], needed: dict[str, Any]) -> None:
    """Collects the objects that a value refers to, in the order in which they are stored."""
    keys = set[str]()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if item.get("type") == "ref" and item["key"] not in keys:
                keys.add(item["key"])
                waiting.append(objects[item["key"]])
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    for key, stored in objects.items():
        if key in keys:
            needed[key] = stored
