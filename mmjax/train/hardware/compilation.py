"""Options of XLA's compiler, and compilation in a thread that signals can interrupt."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import jax

# At level 3 some loops of a CPU's steps take three times as long as at 2, LeNet's whole step on one
# thread a fifth longer, and compiling takes a fifth longer. After the pass that is disabled, XLA
# would merge what `jax.checkpoint` computes again with what was computed before, and keep that.
COMPILER_OPTIONS = {
    "cpu": {"xla_backend_optimization_level": 2, "xla_disable_hlo_passes": "cse_barrier_expander"}
}
# For programs that run once: XLA's older emitters, which JAX 0.12 no longer has, compile faster.
RUN_ONCE_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_THREAD_NAME = "mmjax-compile"


def compile_with_options(
    lowered: jax.stages.Lowered, options: Mapping[str, Any]
) -> jax.stages.Compiled:
    """Compiles a program with those options that the installed XLA has: it refuses unknown ones."""
    try:
        return lowered.compile(dict(options))
    except jax.errors.JaxRuntimeError as error:
        known = {name: value for name, value in options.items() if name not in str(error)}
        if "No such compile option" not in str(error) or len(known) == len(options):
            raise
    return compile_with_options(lowered, known)


def compile_in_thread(lowered: jax.stages.Lowered, options: Mapping[str, Any]) -> Future:
    """Returns the future result of `compile_with_options`."""
    return start_in_thread(lambda: compile_with_options(lowered, options))


def start_in_thread(function: Callable[[], Any]) -> Future:
    """Calls a function in a daemon thread, for which nothing waits when the process ends.

    A main thread that waits for the result handles a signal immediately; one inside of XLA's
    compiler does so only after the compilation, which may take minutes.
    """
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=_THREAD_NAME, daemon=True).start()
    return future
