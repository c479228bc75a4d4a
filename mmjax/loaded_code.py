"""Finds the files that the experiment's own code was loaded from, as opposed to libraries."""

import contextlib
import functools
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FILE_MODULE_PREFIX = "experiment_file_"
"""Prefix of the names of modules that were loaded from a file, and that no import finds."""
_INSTALLED_FOLDERS = {"site-packages", "dist-packages"}


def list_experiment_files(module: ModuleType | None) -> dict[str, Path]:
    """Lists the experiment's own code: its file and the loaded modules beside or below it.

    Installed packages (mmjax and the standard library too) do not count, even where the virtual
    environment lies beside the experiment.

    Returns:
      {path relative to the experiment file's folder, or to that of its top-level package:
      absolute path}, sorted; empty where the module has no file.
    """
    main, root = find_source_file(module), find_code_folder(module)
    if main is None or root is None:
        return {}
    paths = {main, *(path for _, path in iterate_own_modules() if path.is_relative_to(root))}
    return {path.relative_to(root).as_posix(): path for path in sorted(paths)}


def list_traceback_modules(error: BaseException) -> list[str]:
    """Lists the names of the modules in an error's traceback, that of the raising code last."""
    names = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        names.append(frame.f_globals.get("__name__", ""))
    return names


def find_code_folder(module: ModuleType | None) -> Path | None:
    """Returns the folder of the experiment's file, or that of its top-level package."""
    main = find_source_file(module)
    if module is None or main is None:
        return None
    # A module a.b.c in .../a/b/c.py has its code in the folder above a; otherwise in its own
    # folder.
    words = get_import_name(module).split(".") + ["__init__"] * (main.name == "__init__.py")
    in_package = tuple(words) == main.with_suffix("").parts[-len(words) :]
    return main.parents[len(words) - 1 if in_package else 0]


def iterate_own_modules() -> Iterator[tuple[str, Path]]:
    """Yields the names and files of the loaded modules that are not of installed packages."""
    for name, module in list(sys.modules.items()):
        file = _find_source_name(module)
        # Most are recognized by their names alone, since resolving a path takes 0.1 ms.
        if file is None or not file.endswith(".py") or is_library_file(file):
            continue
        path = Path(file).resolve()
        # Some modules name files that do not exist, such as torch's "_classes.py".
        if not is_library_file(str(path)) and path.is_file():
            yield name, path


def find_source_file(module: Any) -> Path | None:
    """Returns the file that a module's code was read from, resolved; None if there is none."""
    name = _find_source_name(module)
    return None if name is None else Path(name).resolve()


def _find_source_name(module: Any) -> str | None:
    """Returns the path of the file that a module's code was read from, as Python has it.

    Where a stored copy is run, that is the copy, whereas `__file__` is the original.
    """
    with contextlib.suppress(Exception):  # What lies in sys.modules may be anything.
        loader = getattr(module, "__loader__", None)
        name = getattr(loader, "path", None) or getattr(module, "__file__", None)
        return name if isinstance(name, str) else None
    return None


def get_import_name(module: ModuleType) -> str:
    """Returns the name by which a module can be imported; "__main__" if it was run as a file."""
    spec = getattr(module, "__spec__", None)
    return spec.name if spec is not None else module.__name__


@functools.cache  # A start asks some ten times for each of a thousand modules.
def is_library_file(file: str) -> bool:
    """Checks whether a file, by its absolute path, is of mmjax, Python or an installed package."""
    is_installed = not _INSTALLED_FOLDERS.isdisjoint(file.split(os.sep))
    return is_installed or file.startswith(_list_library_folders())


@functools.cache
def _list_library_folders() -> tuple[str, ...]:
    """Returns the folders of mmjax and of the standard library."""
    folder = Path(__file__).parent  # tracebacks have paths that are not resolved
    libraries = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
    return f"{folder}{os.sep}", f"{folder.resolve()}{os.sep}", *libraries
