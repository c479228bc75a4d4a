"""What made a run: versions, devices, the state of the code, the command and the time."""

import datetime
import importlib.metadata
import logging
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import files

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

    Installed packages (mmjax too) do not count, even where the virtual environment lies beside the
    experiment.

    Returns:
      {path relative to the experiment file's folder: absolute path}, sorted; empty where the
      module has no file.
    """
    main = getattr(module, "__file__", None)
    if main is None:
        return {}
    root, own = Path(main).resolve().parent, Path(__file__).resolve().parent
    files = {Path(main).resolve()}
    for loaded in list(sys.modules.values()):
        name = getattr(loaded, "__file__", None)
        if isinstance(name, str) and name.endswith(".py"):
            path = Path(name).resolve()
            installed = {"site-packages", "dist-packages"} & set(path.parts)
            if path.is_relative_to(root) and not path.is_relative_to(own) and not installed:
                files.add(path)
    return {path.relative_to(root).as_posix(): path for path in sorted(files)}


FILE = "provenance.json"


def read(directory: Path) -> list[dict[str, Any]]:
    """Reads the records of a run's or study's starts, the oldest first; [] if there are none.

    Raises:
      DamagedFileError: the file is damaged.
    """
    path = directory / FILE
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = files.read_json(path)
    with files.naming_damage(path):
        if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
            raise ValueError("it is not a list of records")
        for one in records:
            if not isinstance(one["time"], str) or not isinstance(one["command"], str):
                raise ValueError("a record's time or command is not text")
    return records


def append(directory: Path, new: Mapping[str, Any]) -> None:
    """Adds a record to a directory's provenance. A damaged file is set aside with a warning."""
    try:
        past = read(directory)
    except files.DamagedFileError as error:
        aside = files.set_aside(directory / FILE)
        logging.getLogger("mmjax").warning("%s It is kept as %s.", error, aside.name)
        past = []
    files.write_json(directory / FILE, [*past, new])


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
