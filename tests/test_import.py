"""Importing mmjax touches no device and drags in nothing heavy."""

import ast
import graphlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULES = (
    "mmjax",
    "mmjax.encoders",
    "mmjax.study",
    "mmjax.auxiliary",
    "mmjax.fusion",
    "mmjax.sharing",
    "mmjax.heads",
    "mmjax.losses",
    "mmjax.metrics",
    "mmjax.balance",
    "mmjax.model",
    "mmjax.experiment",
    "mmjax.config",
    "mmjax.cli",
    "mmjax.train",
    "mmjax.train.steps.train_step",
    "mmjax.train.checkpoint",
    "mmjax.train.reporting.metric_writers",
    "mmjax.data.pipeline",
    "mmjax.data.builtin.polyglot_digits",
    "mmjax.data.builtin.digit_pairs",
)
HEAVY = (
    "tensorflow",
    "tensorflow_datasets",
    "orbax",
    "pandas",
    "grain",
    "matplotlib",
    "rich",
    "sklearn",
    "scipy.fft",
    "scipy.optimize",
    "scipy.stats",
    "tensorboardX",
    "num2words",
    "espeakng_loader",
    "array_record",
)
PROGRAM = """
import importlib, json, sys
import jax, flax.linen, optax
before = set(sys.modules)
for name in sys.argv[1].split():
    importlib.import_module(name)
from jax._src import xla_bridge
started = xla_bridge.backends_are_initialized()
new = sorted(set(sys.modules) - before)
jax.devices()
print(json.dumps([started, xla_bridge.backends_are_initialized(), new]))
"""


@pytest.fixture(scope="module")
def imported():
    """Whether a backend was started, whether one can be seen to start, and the new modules."""
    repository = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:mmjax", "-c", PROGRAM, " ".join(MODULES)],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_no_device_is_touched(imported):
    started, seen, _ = imported
    assert not started
    assert seen  # had one been started, it would have been noticed


def test_nothing_heavy_comes_along(imported):
    """Beyond what jax, flax and optax import themselves."""
    _, _, new = imported
    assert set(MODULES) <= set(new)
    assert [
        m for m in new if m.startswith(tuple(f"{heavy}." for heavy in HEAVY)) or m in HEAVY
    ] == []


SLOW_TO_IMPORT = {"jax", "flax", "optax", "pandas", "matplotlib", "fiddle"}


def imported_by(*arguments):
    """Which of the libraries that take long to import a command imports."""
    repository = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")]))
    program = (
        "import sys\nfrom mmjax.cli import script\n"
        f"try: script({list(map(str, arguments))!r})\nexcept SystemExit: pass\n"
        f"print('imported:', *sorted({SLOW_TO_IMPORT!r} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    assert shown
    return last.split()[1:]


@pytest.mark.parametrize("command", ["", "run", "data", "ablate", "show", "evaluate"])
def test_help_imports_nothing_that_takes_long(command):
    assert imported_by(*command.split(), "--help") == []


@pytest.mark.parametrize("command", ["show", "compare"])
def test_reading_runs_imports_nothing_that_takes_long(command, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        config = {
            "root": {"type": "ref", "key": "a"},
            "objects": {"a": {"type": {"module": "builtins", "name": "dict"}, "items": []}},
        }
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        seed = {"test": {"kind/accuracy": 0.5}, "validation": {}, "best_step": 3, "steps": 4}
        result = {"seeds": {"0": seed}, "parameters": {"total": 9}, "cost": {}}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    runs = [tmp_path / "one", tmp_path / "two"]
    assert imported_by(command, *runs[: 1 + (command == "compare")]) == []


ROOT = Path(__file__).parents[1]
# Each may import itself and those before it.
LAYERS = (
    "train modalities",
    "study report runs modalities.contribution modalities.robustness",
    "export serve",
    "cli",
)


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def imports_of(node, modules):
    """Lists the modules of mmjax that a syntax tree imports, at any depth."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in modules)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                names = (f"{child.module}.{alias.name}", child.module)
                yield from [name for name in names if name in modules][:1]
        elif not is_for_type_checkers(child):
            yield from imports_of(child, modules)


@pytest.fixture(scope="module")
def graph():
    """Maps every module of mmjax to the modules that it imports, in functions too."""
    paths = {}
    for path in (ROOT / "mmjax").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        paths[name.removesuffix(".__init__")] = path
    return {name: set(imports_of(ast.parse(path.read_text()), paths)) - {name}
            for name, path in paths.items()}  # fmt: skip


def test_no_modules_import_each_other(graph):
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def layer_of(module):
    """Returns the layer of a module; -1 for the parts below training."""
    parts = module.split(".")[1:]
    packages = {".".join(parts[:1]), ".".join(parts[:2])}
    return max((i for i, names in enumerate(LAYERS) if packages & {*names.split()}), default=-1)


def test_imports_point_down_the_layers(graph):
    root = {"mmjax", "mmjax.__main__", "mmjax.ablate", "mmjax.summary"}  # the entry points of users
    upwards = {
        (module, other)
        for module in graph.keys() - root
        for other in graph[module]
        if layer_of(other) > layer_of(module)
    }
    assert not upwards


@pytest.mark.parametrize(
    ("old", "name", "home"),
    [
        ("mmjax.ablate", "Study", "mmjax.study"),
        ("mmjax.balance.pullback", "of_jacobian", "mmjax.balance.pullback"),
        ("mmjax.train.step", "make_train_step", "mmjax.train.steps.train_step"),
        ("mmjax.train.teacher", "trained", "mmjax.runs.teacher"),
    ],
)
def test_old_names_work_with_a_warning(old, name, home):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=rf"{old}\.{name} is now {home}"):
        assert getattr(module, name).__module__.startswith(home)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018
