"""What a stored configuration sets, read from its JSON alone: nothing is imported or built.

It is fiddle's format, as `mmjax.config.dump` writes it: a graph of objects whose children stand
beside the element of the path that leads to them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmjax import files
from mmjax.old_names import find_current_name

ELEMENT = re.compile(r"^\w+\(\w+=(?P<key>.*)\)$", re.DOTALL)  # Attr(name='x'), Key(key='x')
CALLS = ("Config", "Partial")


def settings(text: str) -> dict[str, str]:
    """{path: value as text} of what the configuration sets; what it leaves at defaults is not in.

    Raises:
      ValueError: the text is no stored configuration.
    """
    try:
        data = json.loads(text)
        return dict(_rows("", data["root"], data["objects"]))
    except files.DAMAGE as error:
        raise ValueError(f"the stored configuration is damaged: {error!r}.") from error


def differences(configs: Mapping[str, Mapping[str, str]]) -> list[list[str]]:
    """Rows of text, a header first: the paths at which {name: settings} differ, and the values.

    Where one leaves the default it says so.
    """
    paths = dict.fromkeys(path for one in configs.values() for path in one)
    rows = [[path, *(one.get(path, "(default)") for one in configs.values())] for path in paths]
    return [["path", *configs], *(row for row in rows if len(set(row[1:])) > 1)]


def _rows(path: str, value: Any, objects: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The row of a value, or of a container's values where calls lie in it."""
    node = _node(value, objects)
    children = _children(node)
    if _is_call(node):
        yield path or "experiment", _called(node, objects)
    elif not children or not _holds_call(value, objects):
        yield path, _show(value, objects)
        return
    for key, child in children:
        yield from _rows(f"{path}.{key}" if path else key, child, objects)


def _node(value: Any, objects: Mapping[str, Any]) -> Any:
    """What a reference stands for."""
    return objects[value["key"]] if value["type"] == "ref" else value


def _children(node: Any) -> list[tuple[str, Any]]:
    """(key, value) of what lies in a node."""
    found = [(ELEMENT.match(element), value) for element, value in node.get("items", [])]
    return [(match["key"].strip("'\""), value) for match, value in found if match]


def _is_call(node: Any) -> bool:
    kind = node["type"]
    return isinstance(kind, dict) and kind["name"] in CALLS and kind["module"].startswith("fiddle")


def _holds_call(value: Any, objects: Mapping[str, Any]) -> bool:
    node = _node(value, objects)
    return _is_call(node) or any(_holds_call(child, objects) for _, child in _children(node))


def _called(node: Any, objects: Mapping[str, Any]) -> str:
    """A call without its arguments, which have rows of their own."""
    (function,) = (
        v for key, v in _children(_node(node["metadata"], objects)) if key == "fn_or_cls"
    )
    return f"{_name(function)}({'...' if node['items'] else ''})"


def _name(reference: Mapping[str, str]) -> str:
    """A function or class: with its module, unless that is mmjax's or the experiment's file."""
    module, name = find_current_name(reference["module"], reference["name"])
    own = module == "<experiment>" or module.partition(".")[0] == "mmjax"
    return name if own else f"{module}.{name}"


def _show(value: Any, objects: Mapping[str, Any]) -> str:
    """A value without calls, as Python writes it."""
    node = _node(value, objects)
    if node["type"] == "leaf":
        return repr(node["value"])
    if node["type"] == "pyref":
        return _name(node)
    kind, children = node["type"]["name"], _children(node)
    shown = [_show(child, objects) for _, child in children]
    if kind == "dict":
        pairs = zip(children, shown, strict=True)
        return "{" + ", ".join(f"{key}: {text}" for (key, _), text in pairs) + "}"
    if kind == "tuple":
        return f"({', '.join(shown)}{',' * (len(shown) == 1)})"
    return f"[{', '.join(shown)}]" if kind == "list" else f"{kind}({', '.join(shown)})"
