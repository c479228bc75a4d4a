"""The benchmarks are programs, not a package: their folder is put where they look for it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
