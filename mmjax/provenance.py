"""What made a run: versions, devices, the state of the code, the command and the time."""

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path
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
