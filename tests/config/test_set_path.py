"""`apply_setting`: one path is set, and nothing else; what is wrong is refused."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import fiddle as fdl
import flax.linen as nn
import hypothesis
import jax
import optax
import pytest
from hypothesis import strategies as st

from mmjax import balance, encoders, fusion, heads, losses
from mmjax.config import (
    ConfigError,
    apply_setting,
    auto_config,
    build_config,
    find_config_differences,
)
from mmjax.data.dataset import Dataset
from mmjax.experiment import Experiment
from mmjax.model import Model


class Pair(NamedTuple):
    low: float = 0.0
    high: float = 1.0


@dataclasses.dataclass(frozen=True)
class Data:
    size: int = 3
    range: Pair = Pair()  # noqa: RUF009
    sizes: dict[str, int] = dataclasses.field(default_factory=lambda: {"train": 8})
    anything: Any = None


def data(size: int = 3, **extra: int) -> Dataset:
    return Dataset(f"{size} {extra}", {}, {}, {})


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=data(size=4, train=2),
        model=Model(
            encoders={
                "image": encoders.ConvEncoder(features=(8, 16)),
                "audio": encoders.RecurrentEncoder(cell=encoders.elman(activation=jax.nn.relu)),
            },
            fusion=fusion.Concat(),
            heads={
                "digit": heads.Classification(
                    10, loss=functools.partial(losses.cross_entropy, label_smoothing=0.1)
                ),
                "rate": heads.Regression(scale=2.0),
            },
        ),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)),
    )


@auto_config
def small() -> Data:
    return Data(size=5)


CONFIG = experiment.as_buildable()


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("epochs=3", "epochs", "3"),
        (" epochs = 3 ", "epochs", "3"),
        ("patience=5", "patience", "5"),
        ("monitor=digit/accuracy", "monitor", "'digit/accuracy'"),
        ("monitor='digit/accuracy'", "monitor", "'digit/accuracy'"),
        ("compute_dtype=bfloat16", "compute_dtype", "'bfloat16'"),
        ("model.encoders.image.features=(16,32)", "model.encoders.image.features", "(16, 32)"),
        ("model.encoders.image.features.1=99", "model.encoders.image.features", "(8, 99)"),
        ("model.encoders.image.kernel=5", "model.encoders.image.kernel", "5"),
        ("model.sharing.dropout=0.5", "model.sharing.dropout", "0.5"),
        ("model.heads.rate.mean=1", "model.heads.rate.mean", "1"),
        ("model.heads.rate.loss=losses.huber", "model.heads.rate.loss", "huber"),
        ("model.heads.rate.loss=huber", "model.heads.rate.loss", "huber"),
        ("model.heads.digit.loss.label_smoothing=0", "model.heads.digit.loss.label_smoothing", "0"),
        ("model.encoders.audio.cell.activation=jnp.tanh", "model.encoders.audio.cell.activation",
         "nn.tanh"),
        ("optimizer.1.learning_rate=3e-4", "optimizer.1.learning_rate", "0.0003"),
        ("optimizer.1.b1=0.8", "optimizer.1.b1", "0.8"),
        ("data.size=7", "data.size", "7"),
        ("data.train=7", "data.train", "7"),
        ("data.test=7", "data.test", "7"),
    ],
)  # fmt: skip
def test_sets_one_path_and_nothing_else(setting: str, path: str, value: str) -> None:
    before = experiment.as_buildable()
    changes = find_config_differences(CONFIG, apply_setting(CONFIG, setting))
    assert [(d.path, d.second) for d in changes] == [(path, value)]
    assert before == CONFIG, "the configuration given must stay as it was"


def test_call_replaces_a_call() -> None:
    new = apply_setting(CONFIG, "model.fusion=Gated(width=64)")
    assert new.model.fusion == fdl.Config(fusion.Gated, width=64)
    assert build_config(new.model.fusion) == fusion.Gated(width=64)


def test_nested_calls_with_positional_arguments() -> None:
    new = apply_setting(
        CONFIG, "optimizer=optax.chain(optax.clip(2.0), optax.sgd(1e-2, momentum=0.9))"
    )
    expected = fdl.Config(
        optax.chain, fdl.Config(optax.clip, 2.0), fdl.Config(optax.sgd, 1e-2, momentum=0.9)
    )
    assert new.optimizer == expected


def test_a_default_made_by_a_factory_can_be_replaced_and_opened() -> None:
    assert (
        fdl.get_callable(apply_setting(CONFIG, "balancer=balance.pcgrad()").balancer)
        is balance.pcgrad
    )
    opened = apply_setting(small.as_buildable(), "sizes.train=9")
    assert build_config(opened).sizes == {"train": 9}
    assert build_config(small.as_buildable()).sizes == {"train": 8}


def test_fields_of_a_named_tuple() -> None:
    config = apply_setting(small.as_buildable(), "range.high=2.5")
    assert build_config(config).range == Pair(0.0, 2.5)


def test_entries_of_a_dict_come_and_go() -> None:
    new = apply_setting(CONFIG, "model.encoders.text=TextEncoder(embedding=8)")
    assert list(new.model.encoders) == ["image", "audio", "text"]
    assert list(apply_setting(new, "model.encoders.image=None").model.encoders) == ["audio", "text"]


def test_what_is_shared_stays_shared() -> None:
    config = experiment.as_buildable()
    config.model.encoders["other"] = config.model.encoders["image"]
    new = apply_setting(config, "model.encoders.other.kernel=7")
    assert new.model.encoders["image"] is new.model.encoders["other"]


@hypothesis.given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=6,
    )
)
def test_every_literal_arrives_as_it_is(value: Any) -> None:
    hypothesis.assume(value not in (float("inf"), -float("inf")) and "inf" not in repr(value))
    assert apply_setting(small.as_buildable(), f"anything={value!r}").anything == value


CALLS: list[int] = []


def count_calls(x: int = 0) -> Any:
    CALLS.append(x)
    return Data()


def test_a_call_is_parsed_and_not_made() -> None:
    new = apply_setting(CONFIG, f"data={__name__}:count_calls(x=3)")
    assert CALLS == []
    assert fdl.get_callable(new.data) is count_calls and new.data.x == 3


def test_a_module_name_in_a_string_is_a_string() -> None:
    assert apply_setting(CONFIG, "monitor='a.b:c'").monitor == "a.b:c"
    assert apply_setting(small.as_buildable(), "anything={'a:b': 'c:d'}").anything == {"a:b": "c:d"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epcohs=3", "Did you mean epochs?"),
        ("model.encoders.imgae.features=(3,)", "Did you mean model.encoders.image.features"),
        ("model.encoders.imgae.features=(3,)", "Valid instead of 'imgae': image, audio."),
        ("learning_rate=3", "Did you mean optimizer.1.learning_rate?"),
        ("optimizer.learning_rate=3", "optimizer.1.learning_rate"),
        ("heads.digit.hidden=()", "Did you mean model.heads.digit.hidden"),
        ("optimizer.5=optax.clip(2.0)", "Valid instead of '5': 0, 1."),
        ("model.encoders.image.features.2=1", "Valid instead of '2': 0, 1."),
        ("epochs.x=3", "Valid instead of 'x': nothing."),
        ("model.encoders.text=None", "no path 'model.encoders.text'"),
        ("model.parent=None", "no path 'model.parent'"),
        ("epochs=ten", "epochs is 'ten'; expected int."),
        ("epochs=2.5", "epochs is 2.5; expected int."),
        ("epochs=True", "epochs is True; expected int."),
        ("stream=1", "stream is 1; expected bool."),
        ("monitor=3", "monitor is 3; expected str."),
        ("compute_dtype=float16", "expected 'float32' | 'bfloat16'."),
        ("model.encoders.image.features=(3,'x')", "expected tuple[int, ...]."),
        (
            "optimizer=Gated(width=3)",
            "Gated(...); expected GradientTransformation | MultiSteps.",
        ),
        ("model=3", "model is 3; expected Model."),
        ("model.fusion=Gated", "write Gated()"),
        ("model.fusion=Gatde(width=64)", "unknown name 'Gatde'. Did you mean Gated"),
        ("model.fusion=gated(width=64)", "Did you mean Gated"),
        ("optimizer=adamw(1e-3)", "Did you mean optax.adamw?"),
        ("optimizer=optax.admw(1e-3)", "Did you mean optax.adamw"),
        ("model.heads.rate.loss=hubr", "Did you mean huber?"),
        ("model.fusion=Gated(widht=64)", "Did you mean width? It takes: width."),
        ("model.fusion=Gated(width='x')", "Gated(width=...) is 'x'; expected int."),
        ("model.fusion=Gated(1, 2)", "It takes: width."),
        ("model.fusion=Gated(1, 2, 3, 4)", "too many positional arguments"),
        ("model.fusion=Gated(width=", "'(' was never closed"),
        ("model.fusion=Gated(*[1])", "without *"),
        ("model.fusion=Gated(width=1+1)", "cannot read '1 + 1'"),
        ("model.fusion=[Gated][0]()", "only a name can be called"),
        ("monitor=two words", "needs quotes"),
        ("data=os.system('x')", "unknown name 'os.system'"),
        ("data=optax.sys.exit()", "unknown name 'optax.sys.exit'"),
        ("data=__import__('os')", "unknown name '__import__'"),
        ("data=mmjax.cli.main()", "unknown name 'mmjax.cli.main'"),
        ("data=no.such.module:thing()", "cannot import module 'no.such.module'"),
        ("data=math:sqroot()", "Did you mean sqrt"),
        ("epochs", "expected PATH=VALUE"),
        ("epochs=", "expected PATH=VALUE"),
        ("=3", "expected PATH=VALUE"),
    ],
)
def test_refuses(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_setting(CONFIG, setting)
    assert said in str(caught.value)
    assert setting.strip() in str(caught.value)


def test_an_error_of_a_constructor_names_its_path() -> None:
    bad = apply_setting(CONFIG, "model.encoders.image.features=()")
    with pytest.raises(ConfigError, match=r"^model\.encoders\.image: ConvEncoder\.features is"):
        build_config(bad)
    with pytest.raises(ConfigError, match=r"^batch_size is 0"):
        build_config(apply_setting(CONFIG, "batch_size=0"))


def test_an_error_that_is_not_of_arguments_is_no_configuration_error() -> None:
    def broken() -> Any:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        build_config(fdl.Config(broken))


class Odd(nn.Module):
    """Annotations that cannot be resolved forbid nothing."""

    activation: "Callable[[NotThere], None]" = nn.relu  # type: ignore
    width: int = 1


def test_unresolvable_annotations_forbid_nothing() -> None:
    config = apply_setting(fdl.Config(Odd), "activation=nn.gelu")
    assert config.activation is nn.gelu
    assert apply_setting(config, "activation=3").activation == 3
    with pytest.raises(ConfigError, match="expected int"):
        apply_setting(config, "width=word")
