"""Launchers: where the jobs of a study run.

A job is the units of one program (`mmjax.study.packing`). A launcher starts each job in a process
that ends with it, so that memory does not grow with the number of arms:

    local  processes of this machine
    ray    tasks of a Ray cluster, its own or one that exists
    slurm  an array of SLURM jobs, by submitit

A job is described by a file in the study's directory, and its results are the files that a study
without a launcher writes. So any launcher resumes what any other has begun, and the results are the
same bit for bit on the same kind of devices.
"""

import argparse
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mmjax.config import ConfigError
from mmjax.study.launchers.handles import JobHandle

LAUNCHERS = ("in-process", "local", "ray", "slurm")


@runtime_checkable
class Launcher(Protocol):
    """Starts jobs in processes that end; a context manager that ends those that still run.

    Enter it before JAX opens its devices: Ray forks processes.
    """

    def submit(self, jobs: list[str]) -> list[JobHandle]:
        """Submits jobs, given by the paths of their files, and returns a handle of each."""

    def __enter__(self) -> "Launcher": ...

    def __exit__(self, *_: object) -> None: ...


def make_launcher(
    name: str,
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    options: Mapping[str, Any] | None = None,
    folder: str = "",
) -> Launcher | None:
    """Makes a launcher; nothing is started yet.

    Args:
      name: one of `LAUNCHERS`.
      workers: largest number of jobs that run at the same time; None for the launcher's default.
      ray_address: the address of a Ray cluster; None starts one on this machine.
      options: what each worker needs, in the words of Ray's `remote`, such as {"num_gpus": 1}, or
        of submitit's executor, such as {"slurm_partition": "gpu", "timeout_min": 600}.
      folder: where the SLURM launcher keeps its scripts and logs, on a file system of all nodes.

    Returns:
      None for "in-process".

    Raises:
      ConfigError: an option does not apply to the launcher, or its package is not installed.
    """
    options = dict(options or {})
    if name not in LAUNCHERS:
        raise ConfigError(f"the launcher {name!r} is unknown; choose one of {LAUNCHERS}.")
    if ray_address is not None and name != "ray":
        raise ConfigError(f"--ray-address needs --launcher ray, but the launcher is {name}.")
    if options and name not in ("ray", "slurm"):
        raise ConfigError(
            f"--worker {next(iter(options))}=...: the launcher {name} has no such options; choose "
            "--launcher ray or slurm."
        )
    if name == "in-process":
        if workers is not None:
            raise ConfigError("--workers needs a launcher; add --launcher local, ray or slurm.")
        return None
    if name == "local":
        from mmjax.study.launchers.local import LocalLauncher

        return LocalLauncher(workers or 1)
    if name == "ray":
        from mmjax.study.launchers.ray_cluster import RayLauncher

        return RayLauncher(workers, ray_address, options)
    from mmjax.study.launchers.slurm import SlurmLauncher

    return SlurmLauncher(workers, folder, options)


def parse_worker_option(text: str) -> tuple[str, Any]:
    """Parses KEY=VALUE, whose value is a number or text.

    Example:
      >>> parse_worker_option("num_gpus=0.5"), parse_worker_option("slurm_partition=gpu")
      (('num_gpus', 0.5), ('slurm_partition', 'gpu'))
    """
    key, equals, value = text.partition("=")
    if not key.isidentifier() or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    for convert in (int, float):
        try:
            return key, convert(value)
        except ValueError:
            continue
    return key, value
