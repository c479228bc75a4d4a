"""Prepares JAX for a command: devices and the compilation cache.

Commands call it only after everything that needs no device has been checked.
"""

import argparse
import logging
from pathlib import Path

from mmjax import files
from mmjax.config import ConfigError


def set_up_jax(options: argparse.Namespace) -> None:
    """Opens the devices and sets the compilation cache.

    Raises:
      ConfigError: there are fewer devices than `--devices` asks for.
    """
    import jax

    from mmjax.train.hardware.devices import expose_cpu_cores

    set_compilation_cache(options.compilation_cache)
    expose_cpu_cores()
    _join_processes_of_options(options)
    if options.devices is not None and options.devices > jax.device_count():
        raise ConfigError(f"--devices {options.devices}: there is only {jax.device_count()}.")


def check_process_options(options: argparse.Namespace) -> None:
    """Refuses options of several processes that do not belong together.

    Raises:
      ConfigError: naming the option to add or to drop.
    """
    numbers = (options.process_id, options.num_processes)
    if options.coordinator is None:
        if numbers != (None, None):
            raise ConfigError("--process-id and --num-processes need --coordinator HOST:PORT.")
        if not options.distributed:
            return
    elif options.distributed:
        raise ConfigError("--distributed finds the processes itself; drop it, or --coordinator.")
    elif None in numbers:
        raise ConfigError("--coordinator needs --process-id I and --num-processes N.")
    elif options.process_id >= options.num_processes:
        raise ConfigError(
            f"--process-id {options.process_id}: of {options.num_processes} processes the last is "
            f"number {options.num_processes - 1}."
        )
    if options.workdir is None:
        raise ConfigError("a run in several processes needs --workdir DIR, the same for all.")


def _join_processes_of_options(options: argparse.Namespace) -> None:
    """Joins the other processes of the run, if the options say that there are some."""
    coordinator = getattr(options, "coordinator", None)
    if coordinator is None and not getattr(options, "distributed", False):
        return
    from mmjax.train.hardware.multihost import join_processes

    join_processes(coordinator, options.process_id, options.num_processes)


def set_compilation_cache(directory: Path | None) -> None:
    """Stores compiled programs on disk for the next start.

    If the directory cannot be written to, it warns, and no programs are stored.
    """
    import jax

    if directory is None:
        return
    if files.can_write_files(directory):
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        return
    logging.getLogger("mmjax").warning(
        "%s cannot be written to, so compiled programs are not stored for the next start; choose "
        "another folder by --compilation-cache or MMJAX_CACHE.",
        directory,
    )
