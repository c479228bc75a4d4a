"""References to Python objects in a stored configuration, and which objects they may name."""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from fiddle.experimental import serialization

from mmjax.config import constructors, public_names
from mmjax.config.errors import ConfigError
from mmjax.old_names import find_current_name, rename_stored_arguments

OWN_FILE = "<experiment>"
# The names that the format itself uses.
_FORMAT_BUILTINS = {"dict", "list", "tuple", "set", "frozenset", "bytes", "slice", "NoneType"}
_FORMAT_NAMES = {
    "builtins": _FORMAT_BUILTINS,
    "fiddle._src.config": {"Config", "BuildableTraverserMetadata", "NoValue"},
    "fiddle._src.partial": {"Partial"},
    "fiddle._src.signatures": {"NoValue"},
    "pathlib": {"PosixPath"},
}
# The errors that loading damaged text may raise, since fiddle assumes that its form is right.
DESERIALIZATION_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    serialization.DeserializationError,
)


def list_foreign_modules(text: str) -> set[str]:
    """Lists the modules that a stored configuration names and that the user must allow."""
    modules = set()
    for reference in parse_stored_text(text)[1]:
        module, name = reference["module"], reference["name"]
        is_known = module == OWN_FILE or _is_format(module, name)
        if not is_known and constructors.find_constructor_by_name(module, name) is None:
            modules.add(module)
    return modules


def list_own_names(text: str) -> list[str]:
    """Lists the names of its experiment's own file that a stored configuration uses, sorted."""
    return sorted({r["name"] for r in parse_stored_text(text)[1] if r["module"] == OWN_FILE})


def parse_stored_text(text: str) -> tuple[Any, list[dict[str, Any]]]:
    """Reads a stored configuration; returns it and the references to Python objects in it.

    Raises:
      ConfigError: it is damaged.
    """
    try:
        data = json.loads(text)
        rename_stored_arguments(data)
        references = list(iterate_references(data))
    except DESERIALIZATION_ERRORS as error:
        raise ConfigError(f"the stored configuration is damaged: {error}.") from error
    for reference in references:
        if not all(isinstance(reference.get(key), str) for key in ("module", "name")):
            raise ConfigError("the stored configuration is damaged: a reference lacks a name.")
    return data, references


def resolve_reference(
    reference: dict[str, Any], allow: Sequence[str], own: ModuleType | None
) -> tuple[str, str]:
    """Replaces a reference by one that can be looked up safely, and returns its two parts.

    Raises:
      ConfigError: it names nothing, or what neither the list nor the user permits.
    """
    module, name = reference["module"], reference["name"]
    current = find_current_name(module, name)
    if module == OWN_FILE:
        resolved = _get_own_module_name(name, own), name
        # The experiment's own file may import other modules, whose members are not its own.
        _check_definition(own, name, [resolved[0], *allow])
    elif _is_format(module, name):
        resolved = module, name
    # Listed names need no permission, whatever the user allows.
    elif constructor := constructors.find_constructor_by_name(module, name):
        resolved = constructor.module, constructor.name
    elif public_names.is_inside_packages(module, allow) or public_names.is_inside_packages(
        current[0], allow
    ):
        resolved = current
        _check_definition(_import_allowed(current[0]), current[1], [*allow, current[0]])
    else:
        raise ConfigError(
            f"the configuration uses {name} of module '{module}', {_explain_refusal(module)}"
        )
    reference.update(module=resolved[0], name=resolved[1])
    return resolved


def _explain_refusal(module: str) -> str:
    """Says why a stored configuration may not use a module, and what to do about it."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        return (
            "which is not trusted: by Python's own library a run could do anything. If you know "
            f"what it calls, add --allow {module}."
        )
    is_home = any(module == home for home, _ in constructors.list_constructors())
    reason = "is not there or not public" if is_home else "is not trusted"
    return f"which {reason}. If you trust it, add --allow {module}."


def _import_allowed(module: str) -> ModuleType:
    """Imports a module that the user allows."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the configuration uses module '{module}', which is not there: {error}. If it lies "
            "beside the experiment's file, add its folder to PYTHONPATH."
        ) from error


def _check_definition(module: Any, name: str, homes: Sequence[str]) -> None:
    """Refuses a name that leads out of the modules that the user allows.

    Without this, `my_module.os.system` could be called because `my_module` imports `os`.
    """
    # Attributes of the module that are modules themselves, or private, lead elsewhere.
    value = module
    for part in name.split("."):
        if part.startswith("__") or (isinstance(value, ModuleType) and value is not module):
            raise ConfigError(f"the configuration uses {name!r}, which is not trusted.")
        if not hasattr(value, part):
            raise ConfigError(
                f"the stored configuration uses what is not there: module '{module.__name__}' "
                f"defines no {name!r}."
            )
        value = getattr(value, part)
    # An imported function has the module of its definition, which must be allowed as well.
    home = getattr(value, "__module__", None)
    is_theirs = isinstance(home, str) and public_names.is_inside_packages(home, homes)
    if not (constructors.is_constructor(value) or is_theirs):
        raise ConfigError(
            f"the configuration uses {name!r} of module '{module.__name__}', which is "
            f"{value!r}, defined elsewhere and not trusted."
        )


def _is_format(module: str, name: str) -> bool:
    return name in _FORMAT_NAMES.get(module, ())


def iterate_references(data: Any) -> Iterator[dict[str, Any]]:
    """Yields the references to Python objects in a configuration as JSON."""
    if isinstance(data, dict):
        if data.get("type") == "pyref":
            yield data
        for value in data.values():
            yield from iterate_references(value)
    elif isinstance(data, list):
        for value in data:
            yield from iterate_references(value)


def to_public_reference(module: str, name: str, own: set[str]) -> dict[str, str]:
    """Replaces the module of the experiment's own file by its marker, others by the public one."""
    if module in own:
        return {"module": OWN_FILE, "name": name}
    if module.startswith("pathlib"):  # Python 3.13 defines it in pathlib._local.
        return {"module": "pathlib", "name": name}
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part)
    # By identity: a listed object has one public name, wherever it was defined.
    if constructor := constructors.find_constructor_by_value(value):
        module, name = constructor.module, constructor.name
    return {"module": module, "name": name}


def _get_own_module_name(name: str, own: ModuleType | None) -> str:
    if own is None:
        raise ConfigError(
            f"the configuration uses {name} of its experiment's own file; "
            "name that file: mmjax run FILE --from-run DIR."
        )
    return own.__name__
