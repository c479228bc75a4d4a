"""`dump_config` and `load_config`: a round trip is equal, and nothing untrusted is built."""

import functools
import inspect
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fiddle as fdl
import flax.linen as nn
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from mmjax import Experiment, balance, data, encoders, fusion, heads, losses, sharing
from mmjax.config import (
    ConfigError,
    auto_config,
    build_config,
    constructors,
    dump_config,
    load_config,
    type_hints,
)
from mmjax.config.references import list_foreign_modules, list_own_names
from mmjax.data import augment, missing
from mmjax.model import Model

OWN = sys.modules[__name__]


def own_activation(x: Any) -> Any:
    return x


class OwnFusion(nn.Module):
    width: int


@auto_config
def rich() -> dict[str, Any]:
    return {
        "model": Model(
            encoders={
                m: encoders.RecurrentEncoder(cell=encoders.elman(activation=a))
                for m, a in [("a", jax.nn.relu), ("b", jnp.tanh), ("c", nn.gelu)]
            },
            fusion=fusion.Gated(width=3),
            heads={
                "t": heads.Classification(
                    3, loss=functools.partial(losses.cross_entropy, label_smoothing=0.1)
                )
            },
        ),
        "optimizer": optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100)),
        ),
        "init": nn.Dense(3, kernel_init=nn.initializers.lecun_normal(), dtype=jnp.bfloat16),
        "balancer": balance.uncertainty(),
        "function": losses.huber,
        "constants": (1, -2.5, 1e-30, True, None, "é\n", [1, (2,)], {3: "x"}, float("inf")),
    }


@auto_config
def own() -> dict[str, Any]:
    return {"fusion": OwnFusion(width=2), "function": own_activation}


def test_round_trip_is_equal() -> None:
    config = rich.as_buildable()
    text = dump_config(config)
    assert load_config(text) == config
    assert dump_config(load_config(text)) == text
    assert build_config(load_config(text))["model"].fusion == rich()["model"].fusion


def test_names_are_stored_as_users_write_them() -> None:
    text = dump_config(rich.as_buildable())
    assert '"optax"' in text and "optax._src" not in text
    assert '"jax.nn"' in text and "jax._src" not in text
    assert list_foreign_modules(text) == set()


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@hypothesis.given(literals, literals)
def test_round_trip_of_any_literals(first: Any, second: Any) -> None:
    config = fdl.Config(optax.sgd, first, momentum=second)
    assert load_config(dump_config(config)) == config


def test_names_of_the_experiments_own_file_follow_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = own.as_buildable()
    text = dump_config(config, OWN)
    assert list_own_names(text) and __name__ not in text
    assert load_config(text, own=OWN) == config
    twin = ModuleType("twin")
    code = "def own_activation(x): return x\nclass OwnFusion:\n  def __init__(self, width): ..."
    exec(code, vars(twin))
    monkeypatch.setitem(sys.modules, "twin", twin)
    loaded = load_config(text, own=twin)
    assert loaded["function"] is twin.own_activation
    assert fdl.get_callable(loaded["fusion"]) is twin.OwnFusion
    with pytest.raises(ConfigError, match="mmjax run FILE --from-run DIR"):
        load_config(text)


def test_main_is_always_the_experiments_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(own_activation, "__module__", "__main__")
    monkeypatch.setattr(main, "own_activation", own_activation, raising=False)
    text = dump_config({"f": own_activation, "c": fdl.Config(optax.sgd, 1.0)})
    assert list_own_names(text) and '"__main__"' not in text
    assert load_config(text, own=main)["f"] is own_activation


def test_another_module_needs_leave_and_the_error_says_how() -> None:
    text = dump_config(own.as_buildable())
    assert list_foreign_modules(text) == {__name__}
    with pytest.raises(ConfigError, match=f"add --allow {__name__}"):
        load_config(text)
    assert load_config(text, allow=[__name__]) == own.as_buildable()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("mmjax.config.public_names", "importlib.import_module"),
        ("mmjax.config.serialize", "load"),
        ("mmjax.cli", "main"),
        ("mmjax.provenance", "subprocess.run"),
        ("mmjax.data.dataset", "dataclasses.sys.exit"),
        ("mmjax.heads", "nn.module.functools.partial"),
        ("mmjax.heads", "np.load"),
        ("mmjax.heads", "check_kind.__globals__.get"),
        ("mmjax.heads", "__loader__.get_data"),
        ("mmjaxevil", "thing"),
        ("jax.numpy", "load"),
        ("jax.numpy", "save"),
        ("jax", "jit"),
        ("jax", "config.update"),
        ("flax.serialization", "from_bytes"),
        ("fiddle", "build"),
        ("fiddle._src.config", "sys.exit"),
        ("optax", "sys.exit"),
    ],
)
def test_untrusted_names_are_refused(module: str, name: str) -> None:
    data = json.loads(dump_config(fdl.Config(optax.sgd, 1.0)))
    swapped = json.dumps(_with_name(data, "sgd", module, name))
    assert module in swapped
    with pytest.raises(ConfigError):
        load_config(swapped)


def test_an_untrusted_module_is_not_even_imported() -> None:
    data = json.loads(dump_config(fdl.Config(optax.sgd, 1.0)))
    for module, said in (("this", "Python's own library"), ("antlr4", "--allow antlr4")):
        sys.modules.pop(module, None)
        with pytest.raises(ConfigError, match=said):
            load_config(json.dumps(_with_name(data, "sgd", module, "d")))
        assert module not in sys.modules


def _with_name(data: Any, old: str, module: str, name: str) -> Any:
    """The stored configuration with one Python name replaced by another."""
    if isinstance(data, dict):
        if data.get("type") == "pyref" and data["name"] == old:
            return {"type": "pyref", "module": module, "name": name}
        return {k: _with_name(v, old, module, name) for k, v in data.items()}
    return [_with_name(v, old, module, name) for v in data] if isinstance(data, list) else data


@pytest.mark.parametrize("value", [np.zeros(3), lambda x: x, object()])
def test_what_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be stored"):
        dump_config(fdl.Config(optax.sgd, value))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"root": {"type": "ref"}}'])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        load_config(text)


def test_a_name_that_is_gone_is_refused() -> None:
    data = json.loads(dump_config(fdl.Config(optax.sgd, 1.0)))
    with pytest.raises(ConfigError, match="not there or not public"):
        load_config(json.dumps(_with_name(data, "sgd", "optax", "no_such_optimizer")))


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("mmjax.encoders.conv", "ConvEncoder", encoders.ConvEncoder),
        ("optax._src.alias", "adam", optax.adam),
        ("jax._src.nn.functions", "relu", jax.nn.relu),
        ("flax.linen.linear", "Dense", nn.Dense),
        ("mmjax.data.augment", "chain", augment.chain),
        ("mmjax.data.builtin.polyglot_digits", "polyglot_digits", data.polyglot_digits),
    ],
)
def test_older_runs_name_things_by_the_place_of_definition(
    module: str, name: str, value: Any
) -> None:
    stored = json.loads(dump_config(fdl.Config(own_activation, losses.huber)))
    swapped = json.dumps(_with_name(stored, "huber", module, name))
    assert load_config(swapped, allow=[__name__]).x is value


def comes_back(value: Any) -> bool:
    """Checks whether a function or class can be stored, as an argument of an allowed one."""
    return load_config(dump_config(fdl.Config(own_activation, value)), allow=[__name__]).x is value


def test_all_that_packages_export_may_be_stored() -> None:
    for package in constructors.CONSTRUCTOR_PACKAGES:
        module = sys.modules[package]
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type) or inspect.isfunction(value):
                assert constructors.is_constructor(value), f"{package}.{name}"
                assert comes_back(value)
    for name, value in vars(losses).items():
        if getattr(value, "__module__", "") == losses.__name__ and not name.startswith("_"):
            assert constructors.is_constructor(value), name


def test_the_list_is_complete_for_transformations_schedules_and_modules() -> None:
    """What optax and Flax of today export of the kinds that an experiment is made of."""
    wanted = (optax.GradientTransformation, optax.GradientTransformationExtraArgs, optax.Schedule)
    for module in (optax, optax.contrib):
        for name, value in vars(module).items():
            if inspect.isfunction(value) and not name.startswith("_"):
                made = type_hints.resolve_annotations(value).get("return")
                assert made not in wanted or constructors.is_constructor(value), name
    for name, value in vars(nn).items():
        if isinstance(value, type) and issubclass(value, nn.Module):
            bases = ("Module", "RNNCellBase")
            assert name in bases or "Fp8" in name or constructors.is_constructor(value), name


def test_every_listed_name_is_there_and_comes_back() -> None:
    for (module, name), constructor in constructors.list_constructors().items():
        assert callable(constructor.value), f"{module}.{name}"
        try:
            assert comes_back(constructor.value)
        except ConfigError as error:  # What cannot be stored cannot be in a store.
            assert "cannot be stored" in str(error), f"{module}.{name}: {error}"
    listed = {(m, n) for m, names in constructors.CONSTRUCTOR_NAMES.items() for n in names.split()}
    assert listed <= set(constructors.list_constructors()), "names that the installed versions lack"


def test_functions_that_read_files_are_for_data_only() -> None:
    table = fdl.Config(data.from_table, "x.csv", inputs={"a": "a"}, targets={"b": "b"})
    twice = fdl.Config(missing.at_random, table, modalities=0.1)
    model = fdl.Config(Model, encoders={"a": fdl.Config(encoders.MLPEncoder)})
    good = fdl.Config(Experiment, data=twice, model=model)
    assert load_config(dump_config(good)).data.data.__arguments__["table"].endswith("/x.csv")
    for bad in (
        table,
        [table],
        fdl.Config(optax.sgd, table),
        fdl.Config(optax.chain, table),
        fdl.Config(Experiment, data=fdl.Partial(data.from_table)),
        fdl.Config(heads.Classification, 3, loss=data.from_table),
        fdl.Config(Model, encoders={"a": table}),
        fdl.Config(encoders.Wrap, module=table),
        {"x": {"y": [data.from_arrays]}},
    ):
        with pytest.raises(ConfigError, match="which reads files"):
            load_config(dump_config(bad))
    own = fdl.Config(own_activation, table)
    assert load_config(dump_config(own), allow=[__name__]).x.table.endswith("/x.csv")


def test_a_call_must_fit_its_place() -> None:
    for bad, said in (
        (fdl.Config(Experiment, data=fdl.Config(optax.sgd, 1.0)), "^data is optax.sgd"),
        (fdl.Config(Model, fusion=fdl.Config(balance.equal)), r"^fusion is equal\(...\); expected"),
        (fdl.Config(Model, heads={"t": fdl.Config(optax.sgd, 1.0)}), "^heads.t is optax.sgd"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(dump_config(bad))


def test_a_deep_literal_for_a_number_is_refused() -> None:
    deep: Any = 0.5
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested too deeply"):
        load_config(dump_config(fdl.Config(sharing.HardSharing, dropout=deep)))


@pytest.mark.parametrize("bad", [None, [], {}, "text"])
def test_a_literal_must_fit_a_number(bad: Any) -> None:
    config = fdl.Config(Model, sharing=fdl.Config(sharing.HardSharing, (3,), dropout=bad))
    with pytest.raises(ConfigError, match=r"^sharing.dropout is .*; expected float"):
        load_config(dump_config(config))


def test_what_python_takes_for_another_type_is_loaded() -> None:
    config = fdl.Config(sharing.HardSharing, [3], dropout=1)
    assert load_config(dump_config(config)) == config


def test_arguments_without_a_name_are_refused() -> None:
    data = json.loads(dump_config(fdl.Config(sharing.HardSharing, dropout=0.5)))
    names = data["objects"]["tuple_1"]["items"]
    assert names == [["Index(index=0)", "dropout"]]
    names[0][1] = None
    with pytest.raises(ConfigError, match="an argument named None"):
        load_config(json.dumps(data))


def test_paths_are_stored_as_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {
        "one": fdl.Config(data.from_table, "t.csv", {"m": "x.csv"}, {"t": "y"}, name="n.csv"),
        "each": fdl.Config(data.from_table, {"train": "a.csv", "test": "/b.csv"}, {}, {}),
        "arrays": fdl.Config(
            data.from_arrays, {"train": Path("a.npz"), "test": {"x": "b"}}, [], []
        ),
        "folders": fdl.Config(data.polyglot_digits, data_dir="d"),
        "home": fdl.Config(data.av_mnist, data_dir="~/d", manual_dir="gs://m"),
    }
    joined = fdl.Config(os.path.join, tmp_path, "a", "b.csv")
    config["made"] = fdl.Config(data.from_table, fdl.Config(Path, "t.csv"), {}, {})
    config["joined"] = fdl.Config(data.from_table, {"train": joined}, {}, {})
    again = load_config(dump_config(fdl.Config(own_activation, config)), allow=[__name__]).x
    assert again["made"].table == tmp_path / "t.csv"
    assert again["joined"].table == {"train": str(tmp_path / "a" / "b.csv")}
    assert again["one"].table == str(tmp_path / "t.csv")
    assert again["one"].inputs == {"m": "x.csv"} and again["one"].name == "n.csv"
    assert again["each"].table == {"train": str(tmp_path / "a.csv"), "test": "/b.csv"}
    assert again["arrays"].splits == {"train": tmp_path / "a.npz", "test": {"x": "b"}}
    assert again["folders"].data_dir == str(tmp_path / "d")
    assert (again["home"].data_dir, again["home"].manual_dir) == ("~/d", "gs://m")


def chained(levels: int) -> fdl.Config:
    config = fdl.Config(optax.clip, 1.0)
    for _ in range(levels):
        config = fdl.Config(optax.chain, config)
    return config


def test_nesting_is_stored_up_to_a_limit() -> None:
    """Beyond it, whatever follows a configuration would exhaust Python's stack."""
    deep = dump_config(chained(40))
    assert (
        dump_config(load_config(deep)) == deep
    )  # fiddle's own == takes twice as long for each level
    build_config(load_config(deep))
    with pytest.raises(ConfigError, match="nested too deeply; 50 levels are the most"):
        load_config(dump_config(chained(60)))
    with pytest.raises(ConfigError, match="cannot be stored: it is nested too deeply"):
        dump_config(chained(2000))
