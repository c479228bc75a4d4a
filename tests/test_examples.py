"""The examples of the docstrings run, and print what they say.

`pytest --doctest-modules` would import the modules a second time, beside those that are loaded.
"""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [p.relative_to(ROOT) for p in sorted((ROOT / "mmjax").rglob("*.py"))]
MODULES = [
    ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    for file in FILES
    if ">>> " in (ROOT / file).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    assert len(MODULES) > 100
