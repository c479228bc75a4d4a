"""Records what made a run: versions, devices, state of the code, command and time."""

import datetime
import hashlib
import importlib.metadata
import logging
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmjax import files
from mmjax.loaded_code import find_code_folder, list_experiment_files

RECORDS_FILE = "provenance.json"
_LOGGER = logging.getLogger("mmjax")
_RECORDED_PACKAGES = ("mmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def make_record(
    command: str,
    *,
    git: Mapping[str, Any] | None = None,
    code: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    weights: Mapping[str, str] | None = None,
    devices_used: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Makes a record of this process, ready for JSON.

    Args:
      command: the command as typed.
      git: `read_git_state` of the experiment's file.
      code: `digest_code` of the experiment.
      data: `digest_data` of its data.
      weights: `digest_weights` of the files that its parameters come from.
      devices_used: {arm: number of devices that train it}.
    """
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "git": None if git is None else dict(git),
        "versions": {"python": platform.python_version()} | list_versions(),
        "platform": platform.platform(),
        "devices": describe_devices() | {"used": dict(devices_used or {})},
        "code": dict(code or {}),
        "data": dict(data or {}),
        "weights": dict(weights or {}),
    }


def digest_code(module: ModuleType | None) -> dict[str, str]:
    """Computes {name in `list_experiment_files`: SHA-256} of the experiment's own files."""
    paths = list_experiment_files(module)
    return {name: files.compute_sha256(path) for name, path in paths.items() if path.is_file()}


def digest_data(data: Mapping[str, Any]) -> dict[str, str]:
    """Computes fingerprints of the splits of data sets.

    Args:
      data: {name of an arm: its data set}; the same object may come again.

    Returns:
      {split: fingerprint} of the first data set, and {arm/split: fingerprint} of others; for each
      tokenizer, {"tokenizer of MODALITY": SHA-256 of its file} likewise.
    """
    digests: dict[str, str] = {}
    first, done = next(iter(data.values()), None), set()
    for arm, dataset in data.items():
        if id(dataset) not in done:
            done.add(id(dataset))
            digests |= _digest_data_set(dataset, "" if dataset is first else f"{arm}/")
    return digests


def _digest_data_set(dataset: Any, prefix: str) -> dict[str, str]:
    """Computes the fingerprints of a data set's splits and tokenizers, under a prefix."""
    # Imports JAX, and reading provenance does not.
    from mmjax.data.fingerprint import compute_fingerprint

    digests = {}
    for split, source in getattr(dataset, "splits", {}).items():
        digests[f"{prefix}{split}"] = compute_fingerprint(source)
    for modality, preparation in getattr(dataset, "preparations", {}).items():
        if tokenizer := preparation.learned.get("tokenizer"):
            digest = hashlib.sha256(tokenizer.encode()).hexdigest()
            digests[f"{prefix}tokenizer of {modality}"] = digest
    return digests


def digest_weights(inits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Computes {"ARM/PART": SHA-256} of weight files; those that are gone are left out.

    Args:
      inits: {arm: `Experiment.init`}.
    """
    from mmjax.pretrained.weight_loading import digest_init  # imports JAX, as above

    digests: dict[str, str] = {}
    for arm, init in inits.items():
        digests |= {f"{arm}/{part}": digest for part, digest in digest_init(init).items()}
    return digests


def check_unchanged(
    directory: Path, new: Mapping[str, Any], module: ModuleType | None, *, allow: bool
) -> None:
    """Compares code, data, weights and devices with those that the run or study last used.

    Damaged or older provenance, which has no digests, has nothing to compare with.

    Args:
      directory: of the run or study.
      new: `make_record` of this start.
      module: of the experiment's file.
      allow: whether changes of code, data and weights cause a warning instead of an error.

    Raises:
      ConfigError: code, data or weights changed, and `allow` is False.
    """
    try:
        past = read_records(directory)
    except files.DamagedFileError:
        return  # which `append_record` reports
    with files.name_damaged_file(directory / RECORDS_FILE):
        # The newest record with digests; those of older versions of mmjax have none.
        known: dict[str, Any] = next((old for old in reversed(past) if "code" in old), {})
        lines = _find_code_changes(known.get("code", {}), new["code"], module)
        for what in ("data", "weights"):
            for part, digest in known.get(what, {}).items():
                if new[what].get(part, digest) != digest:
                    lines.append(f"the {what} of {part!r}")
        used = {arm: int(count) for arm, count in known.get("devices", {}).get("used", {}).items()}
    changed_devices = []
    for arm, count in new["devices"]["used"].items():
        if used.get(arm, count) != count:
            changed_devices.append(f"{arm} on {count} instead of {used[arm]}")
    if changed_devices:
        _LOGGER.warning(
            "The number of devices changed (%s): the rest of the run will differ from an "
            "uninterrupted one in rounding, and under dropout in what is dropped.",
            ", ".join(changed_devices),
        )
    if lines and not allow:
        from mmjax.config.errors import ConfigError

        raise ConfigError(
            f"what {directory} was made with has changed since: {', '.join(lines)}. Restore it, "
            "start anew in another --workdir, or add --allow-changes to continue anyway."
        )
    if lines:
        _LOGGER.warning("The run continues with changed parts: %s.", ", ".join(lines))


def _find_code_changes(
    old: Mapping[str, str], new: Mapping[str, str], module: ModuleType | None
) -> list[str]:
    """Describes the files that changed or are gone; those not imported yet are read from disk."""
    folder = find_code_folder(module)
    if folder is None:
        return []
    changes = []
    for name, digest in old.items():
        path = folder / name
        current = new.get(name) or (files.compute_sha256(path) if path.is_file() else None)
        if current != digest:
            changes.append(f"the file {name}" + ("" if current else " (gone)"))
    return changes


def read_records(directory: Path) -> list[dict[str, Any]]:
    """Reads the records of a run's or study's starts, the oldest first; [] if there are none.

    Raises:
      DamagedFileError: the file is damaged.
    """
    path = directory / RECORDS_FILE
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = files.read_json(path)
    with files.name_damaged_file(path):
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise ValueError("it is not a list of records")
        for start in records:
            if not isinstance(start["time"], str) or not isinstance(start["command"], str):
                raise ValueError("a record's time or command is not text")
    return records


def append_record(directory: Path, new: Mapping[str, Any]) -> None:
    """Adds a record to a directory's provenance. A damaged file is set aside with a warning."""
    try:
        past = read_records(directory)
    except files.DamagedFileError as error:
        aside = files.set_aside_damaged(directory / RECORDS_FILE)
        _LOGGER.warning("%s It is kept as %s.", error, aside.name)
        past = []
    files.write_json(directory / RECORDS_FILE, [*past, new])


def list_versions() -> dict[str, str | None]:
    """Returns the installed versions of the packages that affect results; None if missing."""
    return {name: _find_version(name) for name in _RECORDED_PACKAGES}


def describe_devices() -> dict[str, Any]:
    """Returns JAX's backend and the number of its devices of each kind."""
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    return {"backend": jax.default_backend(), "kinds": {k: kinds.count(k) for k in set(kinds)}}


def read_git_state(source: Path | None) -> dict[str, Any] | None:
    """Reads the state of the git repository around a file.

    Returns:
      Its revision, and whether tracked files differ; None without a file, a repository or git.
    """
    if source is None:
        return None
    revision = _run_git(source.parent, "rev-parse", "HEAD")
    changes = _run_git(source.parent, "status", "--porcelain", "--untracked-files=no")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _run_git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
