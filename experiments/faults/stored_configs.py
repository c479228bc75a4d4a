"""Fuzzes stored configurations: each is loaded, or refused in one line, without side effects.

    python experiments/faults/stored_configs.py --cases 10000 --seed 0

Each case changes the JSON of a small experiment's configuration: types, names, nesting, references,
cycles, missing and doubled keys, or single bytes. What loads is shown and stored again, as
`mmjax show` and `--from-run` do; nothing is built. Expected: 0 failures.
"""

import argparse
import copy
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import jax
import toy
from watch import Watch, run_cases

import mmjax
from mmjax.config import ConfigError, dump_config, flatten_config, list_config_rows, load_config

NAMES = [
    ("os", "system"), ("subprocess", "Popen"), ("builtins", "eval"), ("builtins", "exec"),
    ("builtins", "open"), ("builtins", "getattr"), ("builtins", "dict"), ("pathlib", "Path"),
    ("importlib", "import_module"), ("pickle", "loads"), ("shutil", "rmtree"), ("sys", "exit"),
    ("mmjax.cli.experiment_commands", "script"), ("mmjax.config.experiment_source", "import_file"),
    ("mmjax", "__builtins__"), ("mmjax.data.builtin.originals.download", "os.system"),
    ("mmjax.data.load.arrays.npz", "read_npz"), ("optax", "adam"),
    ("optax", "sys.exit"), ("jax.numpy", "load"), ("jax.numpy", "save"), ("jax.numpy", "os.remove"),
    ("flax.linen", "Dense"), ("flax.linen", "Module.__subclasses__"), ("mmjax.fusion", "Gated"),
    ("antigravity", "fly"), ("this", "s"), ("no_such_module", "x"), ("", ""), ("mmjax", ""),
    ("mmjax.data", "from_table"), ("mmjax.types", "np.load"), ("mmjax.model", "jax.numpy.save"),
    ("<experiment>", "thing"), ("__main__", "main"), (".", "x"), ("..mmjax", "x"), ("a" * 999, "b"),
    ("mmjax\x00", "x"), ("mmjax.fusion", "no_such"), ("mmjax.fusion", "Gated.setup"),
    ("mmjax.experiment", "Experiment"), ("functools", "partial"), ("toy", "noise"), ("fiddle", "x"),
]  # fmt: skip
VALUES = [
    None, True, False, 0, 1, -1, 2**63, 10**40, 1.5, float("inf"), float("nan"), "", "x", "mmjax",
    "\ud800", "a\x00b", "root", "object_1", "\x1b[31m", [], [1], [[[]]], {}, {"type": "pyref"},
    {"type": "leaf", "value": 1}, {"type": "ref", "key": "root"}, {"type": "ref", "key": "no"},
    {"type": "pyref", "module": "os", "name": "system"}, {"type": "leaf"}, {"type": "unknown"},
    {"type": "leaf", "value": {"type": "ref", "key": "root"}}, {"key": 1}, "x" * 5000,
]  # fmt: skip


def iterate_values(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (container, key) of everything inside JSON data."""
    keys = list(data) if isinstance(data, dict) else range(len(data))
    for key in keys:
        yield data, key
        if isinstance(data[key], dict | list):
            yield from iterate_values(data[key])


def change_value(rng: random.Random, data: Any, pool: list[Any]) -> None:
    """Changes one place of the JSON data."""
    places = list(iterate_values(data))
    container, key = rng.choice(places)
    names = [
        p for p in places if isinstance(p[0][p[1]], dict) and p[0][p[1]].get("type") == "pyref"
    ]
    references = [p for p in places if p[1] == "key" and isinstance(p[0]["key"], str)]
    match rng.randrange(10):
        case 0:
            del container[key]
        case 1 | 2:
            container[key] = copy.deepcopy(rng.choice(VALUES))
        case 3:
            container[key] = copy.deepcopy(rng.choice(pool))
        case 4 | 5 if names:
            parent, name = rng.choice(names)
            module, attribute = rng.choice(NAMES)
            parent[name] = {"type": "pyref", "module": module, "name": attribute}
        case 6 if references:
            parent, name = rng.choice(references)
            source, source_key = rng.choice(references)
            parent[name] = rng.choice([source[source_key], "root", "no_such", 3])
        case 7:
            depth = rng.choice([3, 60, 400])
            value: Any = container[key]
            for _ in range(depth):
                value = [value] if rng.random() < 0.5 else {"value": value, "type": "leaf"}
            container[key] = value
        case 8 if isinstance(container, dict):
            container[rng.choice(["x", "type", "value", "key", "\ud800", ""])] = container.pop(key)
        case 9 if isinstance(container, dict):
            container[rng.choice(["x", "type", "items", "metadata"])] = rng.choice(VALUES)
        case _:
            source, source_key = rng.choice(places)
            exists = source_key in _keys(source)
            container[key] = copy.deepcopy(source[source_key]) if exists else None


def _keys(container: Any) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def draw_text(rng: random.Random, good: str, pool: list[Any]) -> str:
    """Draws a changed configuration as text."""
    if rng.random() < 0.15:
        letters = list(good)
        for _ in range(rng.randrange(1, 4)):
            index = rng.randrange(len(letters))
            letters[index : index + rng.randrange(3)] = rng.choice(
                ['"', "{", "]", ",", "\x00", "9", ""]
            )
        cut = rng.randrange(len(letters)) if rng.random() < 0.3 else len(letters)
        return "".join(letters[:cut])
    if rng.random() < 0.03:
        return rng.choice(["", "null", "[]", "{}", "1", '"x"', "[" * 100_000, "{" * 9, "NaN"])
    data = json.loads(good)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change_value(rng, data, pool)
    return json.dumps(data)


def main(arguments: list[str] | None = None) -> int:
    """Runs the cases, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    jax.numpy.float32(1)  # starts JAX
    good = dump_config(toy.experiment.as_buildable(), toy)
    list_config_rows(load_config(good, own=toy))
    pool = [container[key] for container, key in iterate_values(json.loads(good))]
    # mmjax imports beartype when it first has to judge a value's type.
    watch = Watch((Path(mmjax.__file__).parent, Path(__file__).parent), allowed=("beartype",))

    def run_case(number: int) -> None:
        text = draw_text(rng, good, pool)
        with watch.case(f"case {number}", (ConfigError,)):
            config = load_config(text, own=toy)
            if not hasattr(config, "__fn_or_cls__"):
                raise ConfigError("the stored configuration is not a call")
            flatten_config(config)
            dump_config(config, toy)

    run_cases(options.cases, run_case)
    return watch.report(f"stored configurations, seed {options.seed}")


if __name__ == "__main__":
    sys.exit(main())
