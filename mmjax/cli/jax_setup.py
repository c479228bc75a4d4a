"""Prepares JAX for a command: devices and the compilation cache.

Commands call it only after everything that needs no device has been checked.
"""

import argparse
import gc
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

    # Tracing creates many objects that stay alive: at Python's default threshold, garbage
    # collection takes 0.3 s of the main job's start.
    gc.set_threshold(50_000)
    set_compilation_cache(options.compilation_cache)
    expose_cpu_cores()
    if options.devices is not None and options.devices > jax.device_count():
        raise ConfigError(f"--devices {options.devices}: there is only {jax.device_count()}.")


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
