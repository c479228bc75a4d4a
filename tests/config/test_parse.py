"""Values that are malformed, hostile or huge: one line each, and nothing is imported or run."""

import sys
from collections.abc import Callable
from typing import Any

import fiddle as fdl
import flax.linen as nn
import optax
import pytest

from mmjax import Experiment, Model, encoders, fusion, heads
from mmjax.config import (
    ConfigError,
    apply_setting,
    auto_config,
    build_config,
    list_config_rows,
    parse,
    type_checks,
)
from mmjax.config.literal_limits import shorten_for_message
from mmjax.data.dataset import Dataset, Modality, Task


def data(size: int = 3, **extra: int) -> Dataset:
    return Dataset(f"{size} {extra}", {"x": Modality((4,))}, {"y": Task("regression")}, {})


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=data(size=4),
        model=Model({"x": encoders.MLPEncoder((4,))}, fusion.Concat(), {"y": heads.Regression()}),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    )


CONFIG = experiment.as_buildable()


@pytest.fixture
def bait(tmp_path, monkeypatch):
    """A module that can be imported, and must not be."""
    (tmp_path / "bait_of_the_test.py").write_text("def thing(*args): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "bait_of_the_test"
    sys.modules.pop("bait_of_the_test", None)


@pytest.mark.parametrize("path", ["monitor", "epochs", "batch_size", "patience", "compute_dtype"])
@pytest.mark.parametrize("form", ["{}:thing", "{}:thing.x", "({}:thing,)", "[{}:thing]"])
def test_a_colon_imports_nothing_where_no_object_is_taken(bait, path, form):
    text = form.format(bait)
    try:
        assert getattr(apply_setting(CONFIG, f"{path}={text}"), path) == text
    except ConfigError as error:
        assert path in str(error)
    assert bait not in sys.modules


def test_a_word_with_a_colon_is_the_text_where_a_string_is_taken(bait):
    for text in ("kind:accuracy", f"{bait}:thing", "a:b:c", "::", ":", "a..b:c"):
        assert apply_setting(CONFIG, f"monitor={text}").monitor == text
    with pytest.raises(ConfigError, match="stands where int is expected; a string needs quotes"):
        apply_setting(CONFIG, f"model.fusion=Gated(width={bait}:thing)")
    assert bait not in sys.modules


def test_a_name_of_a_module_is_imported_where_a_function_is_taken(bait):
    new = apply_setting(CONFIG, f"model.heads.y.loss={bait}:thing")
    assert new.model.heads["y"].loss is sys.modules[bait].thing


@pytest.mark.parametrize(
    ("annotation", "takes"),
    [
        (str, False), (int | None, False), (float, False), (tuple[int, ...], False), (Any, False),
        (dict[str, int], False), (str | Callable[..., Any], False), (list[nn.Module], False),
        (Callable[..., Any], True), (nn.Module, True), (optax.GradientTransformation, True),
        (Callable[..., Any] | None, True), (float | Callable[..., Any], True), (Dataset, True),
        (type, True),
    ],
)  # fmt: skip
def test_which_places_take_objects(annotation, takes):
    assert type_checks.accepts_objects(annotation) == takes


DEEP = 10_000
REFUSED = [
    ("epochs={f(x):1}", "cannot read 'f(x)': a value is a literal"),
    ("epochs={[1]:2}", "unhashable type: 'list'"),
    ("epochs=::", "epochs is '::'; expected int."),
    ("data=::", "is not of the form module:name"),
    ("data=a..b:c", "is not of the form module:name"),
    ("epochs=" + "(" * 150 + ")" * 150, "epochs is (); expected int."),
    ("epochs=" + "[" * 60 + "]" * 60, "nested too deeply"),
    ("epochs=" + "-" * 9000 + "1", "nested too deeply"),
    ("epochs=a" + ".a" * 4900, "--set epochs=a.a"),  # nested for Python 3.11, a word for 3.13
    ("model.fusion=" + "Gated(width=" * 60 + "1" + ")" * 60, "nested too deeply"),
    ("epochs=" + "(" * DEEP + ")" * DEEP, "the value has 20000 characters; it may have 10000."),
    ("epochs=" + "9" * 5000, "expected int."),
    ("epochs=0x" + "f" * 5000, "the value has a number of 20000 bits, which is too large."),
    ("epochs=1e999", "a number that is too large for a float"),
    ("model.heads.y.scale=1e999", "a number that is too large for a float"),
    ("optimizer.1.learning_rate=-1e999", "too large for a float"),
    ("epochs=\udcff", "--set is not valid Unicode: 'epochs=\\udcff'."),
    ("\udcff=1", "--set is not valid Unicode"),
    ("monitor='\\ud800'", "the value is not valid Unicode"),
    ("epochs=1\x002", "null bytes"),
    ("epochs=f'{x}'", "a value is a literal, a name or a call"),
    ("epochs=f''", "a value is a literal, a name or a call"),
    ("epochs=(x := 1)", "a value is a literal, a name or a call"),
    ("epochs=x := 1", "A string needs quotes"),
    ("epochs=lambda: 0", "a value is a literal, a name or a call"),
    ("epochs=[x for x in y]", "a value is a literal, a name or a call"),
    ("epochs=(*a,)", "a value is a literal, a name or a call"),
    ("epochs={**a}", "a value is a literal, a name or a call"),
    ("epochs={1, 2}", "epochs is {1, 2}; expected int."),
    ("epochs=...", "epochs is Ellipsis; expected int."),
    ("epochs=b'x'", "epochs is b'x'; expected int."),
    ("epochs=1j", "epochs is 1j; expected int."),
    ("epochs=9**9", "cannot read '9 ** 9'"),
    ("epochs=x.__class__", "epochs is 'x.__class__'; expected int."),
    ("model.fusion=Gated(width=1, width=2)", "Gated has the parameter 'width' twice."),
    ("model.fusion=Gated({[]: 1})", "unhashable type"),
    ("model.fusion=Gated(width=1e999)", "too large for a float"),
    ("optimizer=optax.adam(learning_rate=", "'(' was never closed"),
    ("optimizer.0=1.0", "optimizer.0 is 1.0; expected GradientTransformation"),
    ("optimizer=optax.chain(1, 2)", "argument 0 is 1; expected GradientTransformation"),
    ("optimizer.1=data.augment.shift_and_crop(2)", "shift_and_crop(...); expected GradientTransf"),
    ("model.missing=Gated(width=3)", "model.missing is Gated(...); expected 'mask' | 'zeros'"),
    ("data.extra=x", "data.extra is 'x'; expected int."),
    ("data.__class__=3", "no path 'data.__class__'"),
    ("data._hidden=3", "no path 'data._hidden'"),
    ("model..fusion=Concat()", "the path has an empty part"),
    (".=1", "the path has an empty part"),
    ("model.encoders.=Concat()", "the path has an empty part"),
    ("monitor.0=x", "Valid instead of '0': nothing."),
    ("model.encoders.x.features.-1=3", "Valid instead of '-1': 0."),
    ("batch_size=True", "batch_size is True; expected int."),
    ("model.heads.x=5", "expected Module"),
    ("optimizer=3", "optimizer is 3; expected"),
    ("epochs='\x1b[31m'", "epochs is '\\x1b[31m'; expected int."),
    ("epochs=a\nb", "a\\nb"),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "said"), REFUSED, ids=[ascii(s[:30]) for s, _ in REFUSED])
def test_refused_in_one_short_line(setting, said):
    with pytest.raises(ConfigError) as caught:
        apply_setting(CONFIG, setting)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_texts_are_shortened_for_messages():
    assert shorten_for_message("a\nb") == r"'a\nb'"
    assert shorten_for_message("x" * 301) == "x" * 300 + "..."
    assert shorten_for_message("äö") == "äö"


def make_part(size: int = 0) -> Any:
    return size


def broken(x: Any = None) -> Any:
    raise ValueError("it has\n  several lines")


def buggy() -> Any:
    return object().no_such_attribute  # type: ignore[attr-defined]


def test_a_part_of_another_kind_is_refused_by_path_in_one_line():
    config = fdl.Config(dict, part=fdl.Config(optax.chain, fdl.Config(make_part)))
    with pytest.raises(ConfigError, match=r"^part: 'int' object has no attribute 'init'$"):
        build_config(config)
    with pytest.raises(ConfigError, match=r"^part: it has several lines$"):
        build_config(fdl.Config(dict, part=fdl.Config(broken)))
    with pytest.raises(AttributeError, match="no_such_attribute"):
        build_config(fdl.Config(dict, part=fdl.Config(buggy)))


def divide_by_zero() -> float:
    return 1 / 0


def test_a_damaged_name_that_a_library_reads_is_refused_by_path():
    """NumPy reads the names of types as Python code; a user's function may fail in its own way."""
    with pytest.raises(ConfigError, match=r"^optimizer\.1: leading zeros"):
        build_config(apply_setting(CONFIG, "optimizer.1.mu_dtype=01b1b"))
    with pytest.raises(ZeroDivisionError):
        build_config(fdl.Config(divide_by_zero))


def test_a_configuration_nested_beyond_reason_is_refused():
    value: Any = 1
    for _ in range(5000):
        value = [value]
    with pytest.raises(ConfigError, match="nested too deeply"):
        list_config_rows(fdl.Config(data, size=value))


def test_counts_beyond_32_bits_are_refused():
    with pytest.raises(ConfigError, match="epochs is 2147483648; it must be at most 2147483647"):
        build_config(apply_setting(CONFIG, "epochs=2147483648"))


def test_every_literal_within_the_limits_is_taken():
    deep = "[" * 30 + "1" + "]" * 30
    assert parse.parse_candidates(deep) == [eval(deep)]
    assert parse.parse_candidates(str(2**1023)) == [2**1023]
    assert parse.parse_candidates("1e308") == [1e308]
