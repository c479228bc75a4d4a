"""`dump` and `load`: a configuration comes back equal, and nothing untrusted is ever built."""

import functools
import json
import sys
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

from mmjax import balance, encoders, fusion, heads, losses
from mmjax.config import ConfigError, auto_config, build, dump, load
from mmjax.config.serialize import modules_of, uses_own_file
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
    text = dump(config)
    assert load(text) == config
    assert dump(load(text)) == text
    assert build(load(text))["model"].fusion == rich()["model"].fusion


def test_names_are_stored_as_users_write_them() -> None:
    text = dump(rich.as_buildable())
    assert '"optax"' in text and "optax._src" not in text
    assert '"jax.nn"' in text and "jax._src" not in text
    assert modules_of(text) == set()


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
    assert load(dump(config)) == config


def test_names_of_the_experiments_own_file_follow_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = own.as_buildable()
    text = dump(config, OWN)
    assert uses_own_file(text) and __name__ not in text
    assert load(text, own=OWN) == config
    twin = ModuleType("twin")
    code = "def own_activation(x): return x\nclass OwnFusion:\n  def __init__(self, width): ..."
    exec(code, vars(twin))
    monkeypatch.setitem(sys.modules, "twin", twin)
    loaded = load(text, own=twin)
    assert loaded["function"] is twin.own_activation
    assert fdl.get_callable(loaded["fusion"]) is twin.OwnFusion
    with pytest.raises(ConfigError, match="mmjax run FILE --from-run DIR"):
        load(text)


def test_main_is_always_the_experiments_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(own_activation, "__module__", "__main__")
    monkeypatch.setattr(main, "own_activation", own_activation, raising=False)
    text = dump({"f": own_activation, "c": fdl.Config(optax.sgd, 1.0)})
    assert uses_own_file(text) and '"__main__"' not in text
    assert load(text, own=main)["f"] is own_activation


def test_another_module_needs_leave_and_the_error_says_how() -> None:
    text = dump(own.as_buildable())
    assert modules_of(text) == {__name__}
    with pytest.raises(ConfigError, match=f"add --allow {__name__}"):
        load(text)
    assert load(text, allow=[__name__]) == own.as_buildable()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("mmjax.config.names", "importlib.import_module"),
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
    data = json.loads(dump(fdl.Config(optax.sgd, 1.0)))
    swapped = json.dumps(_with_name(data, "sgd", module, name))
    assert module in swapped
    with pytest.raises(ConfigError):
        load(swapped)


def test_an_untrusted_module_is_not_even_imported() -> None:
    data = json.loads(dump(fdl.Config(optax.sgd, 1.0)))
    assert "this" not in sys.modules
    with pytest.raises(ConfigError, match="--allow this"):
        load(json.dumps(_with_name(data, "sgd", "this", "d")))
    assert "this" not in sys.modules


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
        dump(fdl.Config(optax.sgd, value))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"root": {"type": "ref"}}'])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        load(text)


def test_a_name_that_is_gone_is_refused() -> None:
    data = json.loads(dump(fdl.Config(optax.sgd, 1.0)))
    with pytest.raises(ConfigError, match="not there"):
        load(json.dumps(_with_name(data, "sgd", "optax", "no_such_optimizer")))
