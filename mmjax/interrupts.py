"""Handles the signals that ask a process to end: SIGTERM, SIGHUP and SIGINT (Ctrl-C).

A command turns them into the exception `Interrupted`. While `fit` trains, they are deferred until
the running dispatch or the wait for data has ended and a checkpoint is saved. A second signal ends
the process at once.
"""

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

_T = TypeVar("_T")
SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]

_SYNC_POINTS = itertools.count(1)
"""Numbers the calls of JAX's preemption service, which chooses the number at which to stop."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the command.

    As a KeyboardInterrupt it passes through everything that lets Ctrl-C pass.

    Attributes:
      signum: the number of the signal.
    """

    def __init__(self, message: str = "", signum: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.signum = signum


class _WaitInterrupted(Interrupted):
    """A signal ended a wait for data; `StopRequest` has recorded it."""


@contextlib.contextmanager
def raise_on_signals() -> Iterator[None]:
    """Raises `Interrupted` in the main thread if a signal arrives; for a whole command."""
    previous = _install_handler(_raise_interrupted, SIGNALS)
    show_unraisable = sys.unraisablehook

    def repeat_lost_signal(unraisable: Any) -> None:
        """Sends a signal again whose exception Python has dropped.

        That happens in finalizers and in callbacks of the garbage collector, where no exception
        can be raised.
        """
        error = unraisable.exc_value
        if not isinstance(error, Interrupted):
            show_unraisable(unraisable)
        elif not isinstance(error, _WaitInterrupted):
            armed = threading.Event()
            threading.Thread(target=_send_signal_after, args=(armed, error.signum)).start()
            for signum in previous:
                signal.signal(signum, _raise_interrupted)
            armed.set()

    sys.unraisablehook = repeat_lost_signal
    try:
        yield
    finally:
        sys.unraisablehook = show_unraisable
        _restore_handlers(previous)


def _send_signal_after(armed: threading.Event, signum: int) -> None:
    """Sends this process a signal a moment after the event.

    The function that sets the event must have returned, since it would drop the exception.
    """
    armed.wait()
    time.sleep(0.1)
    os.kill(os.getpid(), signum)


def _raise_interrupted(signum: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        if signal.getsignal(other) is _raise_interrupted:  # ignored ones stay ignored
            signal.signal(other, signal.SIG_DFL)  # a second signal need not wait for Python
    raise Interrupted(signum=signum)


def _install_handler(handler: Any, signals: list[signal.Signals]) -> dict[signal.Signals, Any]:
    """Handles signals by a function, and returns {signal: its previous handler}.

    Ignored signals stay ignored (as under `nohup`), and so do handlers that are not Python's. Only
    the main thread of a process can handle signals; in others nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    previous = {s: signal.getsignal(s) for s in signals}
    replaced = {s: h for s, h in previous.items() if h not in (None, signal.SIG_IGN)}
    for signum in replaced:
        signal.signal(signum, handler)
    return replaced


def _restore_handlers(previous: dict[signal.Signals, Any]) -> None:
    """Restores what `_install_handler` replaced."""
    for signum, handler in previous.items():
        signal.signal(signum, handler)


class StopRequest:
    """Records signals instead of letting them end the process; a context manager.

    If one of several processes gets SIGTERM, JAX's preemption service chooses the step at which
    all of them save. Its own handler of SIGTERM is left alone.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.previous: dict[signal.Signals, Any] = {}
        self.waiting = False

    def __enter__(self) -> "StopRequest":
        return self

    def __exit__(self, *_: object) -> None:
        _restore_handlers(self.previous)

    def defer_signals(self) -> None:
        """Begins to record signals: until now they end the process, as nothing would be lost."""
        import jax

        if jax.process_count() == 1:
            self.previous = _install_handler(self._note, SIGNALS)

    def end_deferral(self, step: int) -> None:
        """Lets signals end the process again, since the checkpoint of the last step is saved.

        Raises:
          Interrupted: a signal arrived that has not been handled yet.
        """
        _restore_handlers(self.previous)
        self.previous = {}
        if self.signum is not None:
            raise self.interruption(step)

    def watch(self, items: Iterable[_T]) -> Iterator[_T | None]:
        """Yields the items; if a signal arrives while waiting for one, yields None and ends."""
        iterator = iter(items)
        while True:
            try:
                self.waiting = True
                if self.signum is not None:
                    raise _WaitInterrupted(signum=self.signum)
                item = next(iterator)
                self.waiting = False
            except StopIteration:
                return
            except Interrupted:
                if self.signum is None:  # not deferred
                    raise
                yield None
                return
            finally:
                self.waiting = False
            yield item

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        for other, handler in self.previous.items():
            # A notebook's handlers return. A command's would wait for Python; the default does not.
            command = handler is _raise_interrupted
            signal.signal(other, signal.SIG_DFL if command else handler)
        name = signal.Signals(signum).name
        text = f"\n{name}: a checkpoint will be saved after these steps; again ends at once.\n"
        with contextlib.suppress(OSError):  # After a hangup the terminal is gone.
            os.write(2, text.encode())  # `print` must not be called within a `print`
        if self.waiting:
            self.waiting = False
            raise _WaitInterrupted(signum=signum)

    def has_arrived(self) -> bool:
        """Checks whether to stop after this dispatch, which is the same one in all processes."""
        import jax

        service = jax.config.jax_enable_preemption_service  # type: ignore[attr-defined]
        if jax.process_count() > 1 and service:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(next(_SYNC_POINTS)):
                self.signum = signal.SIGTERM
        return self.signum is not None

    def interruption(self, step: int) -> Interrupted:
        """Makes the exception that ends the run after its checkpoint is saved."""
        assert self.signum is not None
        name = signal.Signals(self.signum).name
        return Interrupted(
            f"{name}: stopped after step {step}; its checkpoint is saved.", self.signum
        )
