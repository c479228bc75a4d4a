"""Makes the objects of a configuration."""

import re
from typing import Any

import fiddle as fdl

from mmjax.config.errors import ConfigError
from mmjax.loaded_code import list_traceback_modules

# Fiddle adds the path of the call that failed to the message of an error.
FIDDLE_CONTEXT = re.compile(r"\n\nFiddle context: failed to .* at <root>(\S*) with.*", re.DOTALL)

# Errors that libraries raise besides if they get an object of another kind or a damaged name.
_MISUSE_ERRORS = (AttributeError, SyntaxError, LookupError, ArithmeticError)
_LIBRARIES = ("mmjax", "optax", "flax", "jax")
_MISSING_ARGUMENTS = re.compile(r"missing (a|\d+) required .*argument")
_LINE_BREAKS = re.compile(r"\s*\n\s*")  # a refusal is one line


def build_config(config: Any, at: str = "") -> Any:
    """Makes all calls of a configuration, the innermost first; a shared call is made once.

    Args:
      config: a configuration, or a container of some.
      at: its path, for messages, if it is a part of a larger one.

    Raises:
      ConfigError: a constructor refused its arguments; the message names its path.
      OSError: a constructor could not read or write a file.
      Exception: a function of the user's own has a bug, such as an AttributeError.
    """
    try:
        return fdl.build(config)
    except OSError as error:
        raise OSError(FIDDLE_CONTEXT.sub("", str(error))) from error
    except (TypeError, ValueError, *_MISUSE_ERRORS) as error:
        if isinstance(error, _MISUSE_ERRORS) and not _is_raised_in(error, _LIBRARIES):
            raise  # a bug in a function of the user's own
        raise ConfigError(_describe_refusal(str(error), at)) from error


def _describe_refusal(message: str, at: str) -> str:
    """Returns an error's message with the path of the call that raised it, and how to fix it."""
    where = FIDDLE_CONTEXT.search(message)
    path = f"{at}.{_format_path(where[1]) if where else ''}".strip(".")
    reason = _LINE_BREAKS.sub(" ", FIDDLE_CONTEXT.sub("", message).strip())
    if _MISSING_ARGUMENTS.search(reason):
        reason += "; give all, or write partial(function, ...) if the model calls it later"
    return f"{path}: {reason}".removeprefix(": ")


def _is_raised_in(error: Exception, packages: tuple[str, ...]) -> bool:
    """Checks whether one of the packages raised an error, or was called by fiddle for it."""
    homes = [name.partition(".")[0] for name in list_traceback_modules(error)]
    # The frame after fiddle's last one belongs to the function that the configuration calls.
    called = len(homes) - homes[::-1].index("fiddle") if "fiddle" in homes else -1
    return homes[-1] in packages or (called < len(homes) and homes[called] in packages)


def _format_path(path: str) -> str:
    """Converts fiddle's path .model.encoders['image'] to the form that --set takes."""
    return re.sub(r"\[['\"]?(.*?)['\"]?\]", r".\1", path).removeprefix(".")
