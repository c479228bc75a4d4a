"""Stores the code of an experiment with its run, and runs the stored copy.

DIR/experiment.py  the experiment's file, for readers; older runs have nothing else
DIR/code/          the same, and the loaded modules beside or below it
DIR/code.json      their names, and the folder that they were copied from
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mmjax import files, loaded_code, provenance
from mmjax.config.errors import ConfigError
from mmjax.loaded_code import FILE_MODULE_PREFIX
from mmjax.printing.console import print_text

FOLDER = "code"
NOTE = "code.json"


class CodeCopy(NamedTuple):
    """The copy of an experiment's code in a run's directory.

    Attributes:
      folder: the folder of the copies.
      main: the experiment's file, relative to the folder.
      module: the name under which the experiment was imported; None if it was run as a file.
      root: the folder that the files were copied from.
      modules: {name of an imported module: its file, relative to the folder}.
    """

    folder: Path
    main: str
    module: str | None
    root: Path
    modules: Mapping[str, str]


def store_code(directory: Path, module: ModuleType | None) -> None:
    """Copies the code of an experiment into a run's directory.

    Args:
      directory: the run's or the study's.
      module: the module of the experiment's file.
    """
    file = None if module is None else loaded_code.find_source_file(module)
    if module is None or file is None:
        return
    shutil.copyfile(file, directory / "experiment.py")
    copied = loaded_code.list_experiment_files(module)
    for relative, path in copied.items():
        target = directory / FOLDER / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    names = {path: relative for relative, path in copied.items()}
    main = names[file]
    name = loaded_code.get_import_name(module)
    loaded = {
        other: names[path]
        for other, path in loaded_code.iterate_own_modules()
        if path in names and not other.startswith((FILE_MODULE_PREFIX, "__"))
    }
    # The folder of the originals: if a stored copy was run, the files lie in another one.
    root = Path(str(module.__file__)).absolute().parents[main.count("/")]
    note = {
        "main": main,
        "module": None if name.startswith((FILE_MODULE_PREFIX, "__")) else name,
        "root": str(root),
        "modules": loaded,
    }
    files.write_json(directory / NOTE, note)


def find_code_copy(directory: Path) -> CodeCopy | None:
    """Returns the copy of the code in a run's directory; None if there is none.

    Raises:
      DamagedFileError: `code.json` is damaged.
    """
    path = directory / NOTE
    if not path.is_file():
        if not (directory / "experiment.py").is_file():
            return None
        return CodeCopy(directory, "experiment.py", None, directory.absolute(), {})
    note: dict[str, Any] = files.read_json(path)
    with files.name_damaged_file(path):
        folder, modules = directory / FOLDER, dict(note["modules"])
        for relative in [note["main"], *modules.values()]:
            if not (folder / relative).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{relative} lies outside of {folder}")
        return CodeCopy(folder, note["main"], note["module"], Path(note["root"]), modules)


def warn_of_changed_copy(directory: Path, copy: CodeCopy) -> None:
    """Warns of stored files whose checksums differ from those in `provenance.json`."""
    logger = logging.getLogger("mmjax")
    try:
        with files.name_damaged_file(directory / provenance.RECORDS_FILE):
            records = [dict(start.get("code", {})) for start in provenance.read_records(directory)]
    except files.DamagedFileError as error:
        logger.warning("%s The copy of the experiment's code is not checked.", error)
        return
    for relative in sorted({copy.main, *copy.modules.values()}):
        path = copy.folder / relative
        # A resumed run may have continued with other code, but the copy is that of a start.
        known = {record[relative] for record in records if relative in record}
        if known and path.is_file() and files.compute_sha256(path) not in known:
            logger.warning(
                "%s is not the code that the run used: its SHA-256 differs from that in %s.",
                path,
                directory / provenance.RECORDS_FILE,
            )


def run_code_copy(copy: CodeCopy) -> ModuleType:
    """Runs a stored copy of an experiment's code as a module, with the modules stored beside it.

    In all of them `__file__` is the path of the original, so that data beside it are found.

    Raises:
      ConfigError: the code cannot be run; the message names the copy.
    """
    path = copy.folder / copy.main
    print_text(f"Running the stored copy of the experiment's code: {path}", file=sys.stderr)
    name = copy.module or f"{FILE_MODULE_PREFIX}{path.stem}"
    modules = {**copy.modules, name: copy.main}
    # Modules of the same names would be returned from the cache instead of the copies.
    for known in modules:
        sys.modules.pop(known, None)
    importlib.invalidate_caches()
    sys.meta_path.insert(0, _CopyFinder(copy, modules))
    sys.path.insert(0, str(copy.folder.absolute()))
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigError(
            f"the stored copy of the experiment's code, {path}, cannot be run: "
            f"{type(error).__name__}: {error}. It holds the modules that the experiment had loaded "
            f"from {copy.root}; name your own file instead (mmjax run FILE --from-run DIR, "
            "mmjax evaluate DIR --experiment FILE)."
        ) from error


@contextlib.contextmanager
def restore_modules_afterwards() -> Iterator[None]:
    """Restores, after the block, the modules that copies of the same name have replaced."""
    modules, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    try:
        yield
    finally:
        sys.modules.update(modules)
        sys.path[:], sys.meta_path[:] = path, finders


class _CopyFinder:
    """Finds the modules of a copy under the names that the originals had."""

    def __init__(self, copy: CodeCopy, modules: Mapping[str, str]) -> None:
        self.copy, self.modules = copy, modules

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        relative = self.modules.get(name)
        if relative is None:
            return None
        file, original = self.copy.folder.absolute() / relative, self.copy.root / relative
        is_package = file.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            name,
            file,
            loader=_CopyLoader(name, str(file), str(original)),
            submodule_search_locations=[str(file.parent)] if is_package else None,
        )


class _CopyLoader(importlib.machinery.SourceFileLoader):
    """Runs a copy under the original's `__file__`, and writes no bytecode beside it."""

    def __init__(self, name: str, path: str, original: str) -> None:
        super().__init__(name, path)
        self.original = original

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self.original
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Writes no bytecode into the run's directory."""
