"""Settings of stored configurations, read from their JSON without importing or building anything.

The format is fiddle's, as `mmjax.config.dump_config` writes it: a graph of objects; each child
stands beside the path element that leads to it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax import files
from mmjax.old_names import find_current_name, rename_stored_arguments

_PATH_ELEMENT = re.compile(r"^\w+\(\w+=(?P<key>.*)\)$", re.DOTALL)  # Attr(name='x'), Key(key='x')
_CALL_TYPES = ("Config", "Partial")


def parse_settings(text: str) -> dict[str, str]:
    """Returns {path: value as text} of the explicit settings of a configuration, without defaults.

    Args:
      text: JSON as `mmjax.config.dump_config` writes it.

    Raises:
      ValueError: the text is not a stored configuration.
    """
    try:
        data = json.loads(text)
        rename_stored_arguments(data)
        return dict(_iterate_rows("", data["root"], data["objects"]))
    except files.DAMAGE_ERRORS as error:
        raise ValueError(f"the stored configuration is damaged: {error!r}.") from error


def tabulate_differences(configs: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Tabulates the paths at which {name: settings} differ, with the values of each.

    Returns rows of text, the header first.

    Example:
      >>> tabulate_differences({"a": {"epochs": "3"}, "b": {}})
      [['path', 'a', 'b'], ['epochs', '3', '(default)']]
    """
    paths = dict.fromkeys(path for settings in configs.values() for path in settings)
    rows = [["path", *configs]]
    for path in paths:
        values = [settings.get(path, "(default)") for settings in configs.values()]
        if len(set(values)) > 1:
            rows.append([path, *values])
    return rows


def _iterate_rows(path: str, value: Any, objects: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the row of a value, or the rows of its parts if it contains calls."""
    node = _resolve(value, objects)
    children = _get_children(node)
    if _is_call(node):
        yield path or "experiment", _format_call(node, objects)
    elif not children or not _holds_call(value, objects):
        yield path, _format_value(value, objects)
        return
    for key, child in children:
        yield from _iterate_rows(f"{path}.{key}" if path else key, child, objects)


def _resolve(value: Any, objects: Mapping[str, Any]) -> Any:
    """Returns the object that a reference stands for, and other values as they are."""
    return objects[value["key"]] if value["type"] == "ref" else value


def _get_children(node: Any) -> list[tuple[str, Any]]:
    """Returns (key, value) of the children of a node."""
    children = []
    for element, value in node.get("items", []):
        if match := _PATH_ELEMENT.match(element):
            children.append((match["key"].strip("'\""), value))
    return children


def _is_call(node: Any) -> bool:
    kind = node["type"]
    return (
        isinstance(kind, dict)
        and kind["name"] in _CALL_TYPES
        and kind["module"].startswith("fiddle")
    )


def _holds_call(value: Any, objects: Mapping[str, Any]) -> bool:
    node = _resolve(value, objects)
    return _is_call(node) or any(_holds_call(child, objects) for _, child in _get_children(node))


def _format_call(node: Any, objects: Mapping[str, Any]) -> str:
    """Formats a call without its arguments, which have their own rows."""
    (function,) = (
        v for key, v in _get_children(_resolve(node["metadata"], objects)) if key == "fn_or_cls"
    )
    return f"{_format_name(function)}({'...' if node['items'] else ''})"


def _format_name(reference: Mapping[str, str]) -> str:
    """A function or class: with its module, unless that is mmjax's or the experiment's file."""
    module, name = find_current_name(reference["module"], reference["name"])
    own = module == "<experiment>" or module.partition(".")[0] == "mmjax"
    return name if own else f"{module}.{name}"


def _format_value(value: Any, objects: Mapping[str, Any]) -> str:
    """Formats a value without calls as Python writes it."""
    node = _resolve(value, objects)
    if node["type"] == "leaf":
        return repr(node["value"])
    if node["type"] == "pyref":
        return _format_name(node)
    kind, children = node["type"]["name"], _get_children(node)
    texts = [_format_value(child, objects) for _, child in children]
    if kind == "dict":
        pairs = zip(children, texts, strict=True)
        return "{" + ", ".join(f"{key}: {text}" for (key, _), text in pairs) + "}"
    if kind == "tuple":
        return f"({', '.join(texts)}{',' * (len(texts) == 1)})"
    return f"[{', '.join(texts)}]" if kind == "list" else f"{kind}({', '.join(texts)})"
