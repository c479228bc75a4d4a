"""Makes the objects of a configuration."""

import re
import traceback
from typing import Any

import fiddle as fdl

from mmjax.config.errors import ConfigError

# What fiddle adds to the message of an error: the path of the call that failed.
CONTEXT = re.compile(r"\n\nFiddle context: failed to .* at <root>(\S*) with.*", re.DOTALL)

# These miss an attribute where they are given an object of another kind.
LIBRARIES = ("mmjax", "optax", "flax", "jax")
LINES = re.compile(r"\s*\n\s*")  # a refusal is one line


def build(config: Any, at: str = "") -> Any:
    """Calls everything in a configuration, the innermost first; what is shared is called once.

    Args:
      config: a configuration, or a container of some.
      at: its path, for messages, where it is a part of a larger one.

    Raises:
      ConfigError: a constructor refused its arguments; the message names its path.
      OSError: a constructor could not read or write a file.
      AttributeError: a function of the user's own has a bug.
    """
    try:
        return fdl.build(config)
    except OSError as error:
        raise OSError(CONTEXT.sub("", str(error))) from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, AttributeError) and not _raised_in(error, LIBRARIES):
            raise  # a bug in a function of the user's own
        message = str(error)
        where = CONTEXT.search(message)
        path = f"{at}.{_dotted(where[1]) if where else ''}".strip(".")
        reason = LINES.sub(" ", CONTEXT.sub("", message).strip())
        raise ConfigError(f"{path}: {reason}".removeprefix(": ")) from error


def _raised_in(error: Exception, packages: tuple[str, ...]) -> bool:
    """Whether the code of one of some packages raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in packages


def _dotted(path: str) -> str:
    """Fiddle's path .model.encoders['image'] in the form that --set takes."""
    return re.sub(r"\[['\"]?(.*?)['\"]?\]", r".\1", path).removeprefix(".")
