"""What made a run: versions, devices, the state of the code, the command and the time."""

import contextlib
import datetime
import importlib.metadata
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = ("mmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def record(command: str, source: Path | None = None) -> dict[str, Any]:
    """A record of this process, ready for JSON.

    Args:
      command: the command as typed.
      source: the experiment's file; the git repository around it is the one recorded.
    """
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "git": git(source.parent) if source else None,
        "versions": {"python": platform.python_version()} | versions(),
        "platform": platform.platform(),
        "devices": devices(),
    }


def experiment_files(module: ModuleType | None) -> dict[str, Path]:
    """Lists the experiment's own code: its file and the loaded modules beside or below it.

    Installed packages (mmjax and the standard library too) do not count, even where the virtual
    environment lies beside the experiment.

    Returns:
      {path relative to the experiment file's folder, or to that of its top-level package:
      absolute path}, sorted; empty where the module has no file.
    """
    main = None if module is None else source_file(module)
    if module is None or main is None:
        return {}
    words = module_name(module).split(".") + ["__init__"] * (main.name == "__init__.py")
    in_package = tuple(words) == main.with_suffix("").parts[-len(words) :]
    root = main.parents[len(words) - 1 if in_package else 0]
    files = {main, *(path for _, path in own_modules() if path.is_relative_to(root))}
    return {path.relative_to(root).as_posix(): path for path in sorted(files)}


def own_modules() -> Iterator[tuple[str, Path]]:
    """Yields the names and files of the loaded modules that are not of installed packages."""
    standard, library = sysconfig.get_path("stdlib"), str(Path(__file__).resolve().parent)
    for name, module in list(sys.modules.items()):
        file = source_name(module)
        if file is not None and file.endswith(".py") and not _is_installed(file, standard):
            path = Path(file).resolve()
            if not path.is_relative_to(library) and not _is_installed(str(path), standard):
                yield name, path


def source_file(module: Any) -> Path | None:
    """Returns the file that a module's code was read from, resolved; None if there is none."""
    name = source_name(module)
    return None if name is None else Path(name).resolve()


def source_name(module: Any) -> str | None:
    """Returns the path of the file that a module's code was read from, as Python has it.

    Where a stored copy is run, that is the copy, whereas `__file__` is the original.
    """
    with contextlib.suppress(Exception):  # What lies in sys.modules may be anything.
        loader = getattr(module, "__loader__", None)
        name = getattr(loader, "path", None) or getattr(module, "__file__", None)
        return name if isinstance(name, str) else None
    return None


def module_name(module: ModuleType) -> str:
    """Returns the name by which a module can be imported; "__main__" if it was run as a file."""
    spec = getattr(module, "__spec__", None)
    return spec.name if spec is not None else module.__name__


def _is_installed(file: str, standard: str) -> bool:
    parts = {"site-packages", "dist-packages"}
    return file.startswith(standard) or not parts.isdisjoint(Path(file).parts)


def versions() -> dict[str, str | None]:
    """The installed versions of the packages that decide a result; None if not installed."""
    return {name: _version(name) for name in PACKAGES}


def devices() -> dict[str, Any]:
    """JAX's backend, and how many devices it has of each kind."""
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    return {"backend": jax.default_backend(), "kinds": {k: kinds.count(k) for k in set(kinds)}}


def git(directory: Path) -> dict[str, Any] | None:
    """The revision checked out there, and whether tracked files differ; None without git."""
    revision = _git(directory, "rev-parse", "HEAD")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
