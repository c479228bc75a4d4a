"""Arguments of stored configurations that were renamed since."""

from collections.abc import Mapping
from typing import Any

from mmjax.old_names import find_current_name, list_renamed_arguments

_FUNCTION, _NAMES = "Attr(name='fn_or_cls')", "Attr(name='argument_names')"


def rename_stored_arguments(data: Any) -> None:
    """Gives the arguments of a stored configuration their current names, in place.

    Args:
      data: the JSON that `mmjax.config.dump_config` writes, parsed.
    """
    objects = data["objects"]
    for node in objects.values():
        if not isinstance(node.get("metadata"), Mapping):
            continue
        fields = dict(_resolve(node["metadata"], objects).get("items", ()))
        if not {_FUNCTION, _NAMES} <= set(fields) or "module" not in fields[_FUNCTION]:
            continue
        function = fields[_FUNCTION]
        renamed = list_renamed_arguments(*find_current_name(function["module"], function["name"]))
        if renamed:
            attributes = {f"Attr(name='{old}')": f"Attr(name='{new}')" for old, new in renamed}
            node["items"] = [[attributes.get(key, key), value] for key, value in node["items"]]
            names, changes = _resolve(fields[_NAMES], objects), dict(renamed)
            names["items"] = [[i, changes.get(name, name)] for i, name in names["items"]]


def _resolve(value: Any, objects: Mapping[str, Any]) -> Any:
    """Returns the object that a reference stands for, and other values as they are."""
    return objects[value["key"]] if value["type"] == "ref" else value
