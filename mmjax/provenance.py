"""What made a run: versions, devices, the state of the code, the command and the time."""

import contextlib
import datetime
import functools
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import files

LOGGER = logging.getLogger("mmjax")
FILE_PREFIX = "experiment_file_"
"""How the names of modules begin that were imported from a file, which no import finds."""
INSTALLED = {"site-packages", "dist-packages"}
PACKAGES = ("mmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def record(
    command: str,
    source: Path | None = None,
    *,
    code: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    devices_used: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A record of this process, ready for JSON.

    Args:
      command: the command as typed.
      source: the experiment's file; the git repository around it is the one recorded.
      code: `digest_code` of the experiment.
      data: `digest_data` of its data.
      devices_used: {arm: number of devices that train it}.
    """
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "git": git(source.parent) if source else None,
        "versions": {"python": platform.python_version()} | versions(),
        "platform": platform.platform(),
        "devices": devices() | {"used": dict(devices_used or {})},
        "code": dict(code or {}),
        "data": dict(data or {}),
    }


def digest_code(module: ModuleType | None) -> dict[str, str]:
    """Computes the SHA-256 of each of the experiment's own files, by `experiment_files`' names."""
    own = experiment_files(module)
    return {name: files.checksum_file(path) for name, path in own.items() if path.is_file()}


def digest_data(data: Mapping[str, Any]) -> dict[str, str]:
    """Computes fingerprints of the splits of data sets.

    Args:
      data: {name of an arm: its data set}; the same object may come again.

    Returns:
      {split: fingerprint} of the first data set, and {arm/split: fingerprint} of others.
    """
    from mmjax.data.fingerprint import fingerprint  # imports JAX, and reading provenance does not

    digests: dict[str, str] = {}
    first, done = next(iter(data.values()), None), set()
    for arm, dataset in data.items():
        if id(dataset) in done:
            continue
        done.add(id(dataset))
        for split, source in getattr(dataset, "splits", {}).items():
            digests[split if dataset is first else f"{arm}/{split}"] = fingerprint(source)
    return digests


def check_unchanged(
    directory: Path, new: Mapping[str, Any], module: ModuleType | None, *, allow: bool
) -> None:
    """Compares code, data and devices with those that the run or study last used.

    Damaged or older provenance, which has no digests, has nothing to compare with.

    Args:
      directory: of the run or study.
      new: `record` of this start.
      module: of the experiment's file.
      allow: whether changes of code and data are warned of instead of refused.

    Raises:
      ConfigError: code or data changed, and `allow` is False.
    """
    try:
        past = read(directory)
    except files.DamagedFileError:
        return  # which `append` reports
    with files.naming_damage(directory / FILE):
        known: dict[str, Any] = next((one for one in reversed(past) if "code" in one), {})
        used = {arm: int(count) for arm, count in known.get("devices", {}).get("used", {}).items()}
        lines = _code_changes(known.get("code", {}), new["code"], module)
        lines += [
            f"the data of {split!r}"
            for split, digest in known.get("data", {}).items()
            if new["data"].get(split, digest) != digest
        ]
    changed_devices = [
        f"{arm} on {count} instead of {used[arm]}"
        for arm, count in new["devices"]["used"].items()
        if used.get(arm, count) != count
    ]
    if changed_devices:
        LOGGER.warning(
            "The number of devices changed (%s): the rest of the run will differ from an "
            "uninterrupted one in rounding, and under dropout in what is dropped.",
            ", ".join(changed_devices),
        )
    if lines and not allow:
        from mmjax.config.errors import ConfigError

        raise ConfigError(
            f"what {directory} was made with has changed since: {', '.join(lines)}. Restore it, "
            "or start anew in another --workdir; --allow-changes goes on all the same."
        )
    if lines:
        LOGGER.warning("The run goes on with changed parts: %s.", ", ".join(lines))


def _code_changes(
    old: Mapping[str, str], new: Mapping[str, str], module: ModuleType | None
) -> list[str]:
    """Describes the files that changed or are gone; one that is only not imported yet is not."""
    folder = _code_folder(module)
    if folder is None:
        return []
    changes = []
    for name, digest in old.items():
        path = folder / name
        current = new.get(name) or (files.checksum_file(path) if path.is_file() else None)
        if current != digest:
            changes.append(f"the file {name}" + ("" if current else " (gone)"))
    return changes


def experiment_files(module: ModuleType | None) -> dict[str, Path]:
    """Lists the experiment's own code: its file and the loaded modules beside or below it.

    Installed packages (mmjax and the standard library too) do not count, even where the virtual
    environment lies beside the experiment.

    Returns:
      {path relative to the experiment file's folder, or to that of its top-level package:
      absolute path}, sorted; empty where the module has no file.
    """
    main, root = source_file(module), _code_folder(module)
    if main is None or root is None:
        return {}
    found = {main, *(path for _, path in own_modules() if path.is_relative_to(root))}
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _code_folder(module: ModuleType | None) -> Path | None:
    """Returns the folder of the experiment's file, or that of its top-level package."""
    main = source_file(module)
    if module is None or main is None:
        return None
    words = module_name(module).split(".") + ["__init__"] * (main.name == "__init__.py")
    in_package = tuple(words) == main.with_suffix("").parts[-len(words) :]
    return main.parents[len(words) - 1 if in_package else 0]


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
        LOGGER.warning("%s It is kept as %s.", error, aside.name)
        past = []
    files.write_json(directory / FILE, [*past, new])


def own_modules() -> Iterator[tuple[str, Path]]:
    """Yields the names and files of the loaded modules that are not of installed packages."""
    for name, module in list(sys.modules.items()):
        file = source_name(module)
        # Most are recognized by their names alone, since resolving a path takes 0.1 ms.
        if file is None or not file.endswith(".py") or _is_installed(file):
            continue
        path = Path(file).resolve()
        if not _is_installed(str(path)):
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


@functools.cache  # A start asks some ten times for each of a thousand modules.
def _is_installed(file: str) -> bool:
    return file.startswith(_library_folders()) or not INSTALLED.isdisjoint(Path(file).parts)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """Returns the folders of mmjax and of the standard library."""
    library = str(Path(__file__).resolve().parent) + os.sep
    return library, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")


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
