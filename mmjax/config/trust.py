"""What the user permits a stored run while it is opened.

A run may come from anybody. While one is open, code asks here before it executes what the run
names, or writes to folders that it names.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from mmjax.config.errors import ConfigError


class Trust(NamedTuple):
    """What the user permits, by options of the command line.

    Attributes:
      modules: modules whose functions and classes the configuration may use (`--allow MODULE`).
      code: whether the run's copy of its experiment's code may be run (`--allow-code`).
      writes: whether data sets may be prepared, in folders that the configuration names
        (`--allow-writes`).
    """

    modules: tuple[str, ...] = ()
    code: bool = False
    writes: bool = False


_trust_of_open_run: ContextVar[Trust | None] = ContextVar("open_run", default=None)


@contextlib.contextmanager
def open_stored_run(trust: Trust) -> Iterator[None]:
    """Marks that a stored run is being opened, with the user's permissions.

    Raises:
      ConfigError: any unexpected error while objects of a stored configuration are built, since
        its values are not checked as thoroughly as those that a user types.
    """
    token = _trust_of_open_run.set(trust)
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the stored configuration cannot be built: {type(error).__name__}: {reason}"
        ) from error
    finally:
        _trust_of_open_run.reset(token)


def get_current_trust() -> Trust | None:
    """Returns the permissions of the run that is being opened; None outside of that."""
    return _trust_of_open_run.get()


def may_prepare_data() -> bool:
    """Checks whether data sets may be prepared now."""
    trust = _trust_of_open_run.get()
    return trust is None or trust.writes


def check_may_prepare_data(data: str, folder: Path) -> None:
    """Refuses to prepare a data set for a stored run, unless the user permits it.

    Raises:
      ConfigError: naming the data set, the folder and the option.
    """
    if not may_prepare_data():
        raise ConfigError(
            f"the data set {data} is not prepared in {folder}, and opening a stored run writes "
            "nothing there. To prepare it (download and write its files), add --allow-writes."
        )
