"""Importing mmjax is light: no device is touched and no heavy package comes along."""

import subprocess
import sys

CODE = """
import sys
import jax, flax, optax
before = set(sys.modules)
import mmjax, mmjax.cli, mmjax.encoders, mmjax.fusion, mmjax.heads, mmjax.sharing, mmjax.train
import mmjax.data.polyglot_digits, mmjax.data.digit_pairs
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "a device was touched"
heavy = {"tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "rich", "sklearn", "grain",
         "scipy.stats", "tensorboardX", "num2words", "espeakng_loader"}
print(sorted(heavy & (set(sys.modules) - before)))
"""


def test_nothing_heavy_is_imported():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
