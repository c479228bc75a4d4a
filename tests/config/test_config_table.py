"""`list_config_rows`, `flatten_config` and `find_config_differences`: the table of paths."""

import functools

import fiddle as fdl
import optax

from mmjax import encoders, fusion, heads, losses
from mmjax.config import (
    ConfigDifference,
    ConfigRow,
    apply_setting,
    find_config_differences,
    flatten_config,
    list_config_rows,
)
from mmjax.config.config_table import format_config_rows
from mmjax.model import Model


def model() -> fdl.Config:
    return fdl.Config(
        Model,
        encoders={"image": fdl.Config(encoders.ConvEncoder, width=5)},
        fusion=fdl.Config(fusion.Concat),
        heads={
            "digit": fdl.Config(
                heads.Classification,
                10,
                loss=fdl.Partial(losses.cross_entropy, label_smoothing=0.1),
            )
        },
    )


def test_rows_are_all_that_can_be_set_with_defaults() -> None:
    assert list_config_rows(model()) == [
        ConfigRow("encoders.image", "Module", "ConvEncoder(...)"),
        ConfigRow("encoders.image.features", "tuple[int, ...]", "(32, 64)"),
        ConfigRow("encoders.image.kernel", "int | tuple[int, ...]", "3"),
        ConfigRow("encoders.image.width", "int | None", "5"),
        ConfigRow("encoders.image.padding", "'SAME' | 'VALID'", "'SAME'"),
        ConfigRow("encoders.image.norm", "bool", "False"),
        ConfigRow("fusion", "Module", "Concat()"),
        ConfigRow("heads.digit", "Module", "Classification(...)"),
        ConfigRow("heads.digit.classes", "int", "10"),
        ConfigRow("heads.digit.hidden", "tuple[int, ...]", "()"),
        ConfigRow("heads.digit.loss", "Callable", "partial cross_entropy(...)"),
        ConfigRow("heads.digit.loss.label_smoothing", "float", "0.1"),
        ConfigRow(
            "heads.digit.class_weights",
            "'balanced' | EffectiveNumber | Sequence[float] | None",
            "None",
        ),
        ConfigRow("heads.digit.extra_metrics", "Mapping[str, Callable]", "{}"),
        ConfigRow("sharing", "Module", "HardSharing(...)"),
        ConfigRow("sharing.features", "tuple[int, ...]", "()"),
        ConfigRow("sharing.dropout", "float", "0.0"),
        ConfigRow("shared", "tuple[str, ...] | None", "None"),
        ConfigRow("missing", "'mask' | 'zeros' | 'token' | 'bank'", "'mask'"),
        ConfigRow("auxiliary", "Mapping[str, Callable]", "{}"),
        ConfigRow("remat", "tuple[str, ...]", "()"),
    ]


def test_every_leaf_of_the_table_can_be_set_to_its_own_value() -> None:
    config = model()
    for path, _, value in list_config_rows(config):
        if "(..." not in value:
            same = apply_setting(config, f"{path}={value}")
            assert flatten_config(same) == flatten_config(config), path


def test_missing_arguments_show_as_required() -> None:
    assert flatten_config(fdl.Config(optax.adam))["learning_rate"] == "(required)"


def test_types_of_optax_are_short() -> None:
    types = {row.path: row.type for row in list_config_rows(fdl.Config(optax.adamw))}
    assert types["learning_rate"] == "float | Callable"
    assert types["b1"] == "float"
    assert types["nesterov"] == "bool"


def test_difference_lists_both_values() -> None:
    other = apply_setting(apply_setting(model(), "encoders.image.width=6"), "fusion=Gated(width=3)")
    assert find_config_differences(model(), other) == [
        ConfigDifference("encoders.image.width", "5", "6"),
        ConfigDifference("fusion", "Concat()", "Gated(...)"),
        ConfigDifference("fusion.width", None, "3"),
    ]
    assert find_config_differences(other, model())[-1] == ConfigDifference(
        "fusion.width", "3", None
    )


def test_a_default_written_out_is_no_difference() -> None:
    assert (
        find_config_differences(model(), apply_setting(model(), "sharing=HardSharing(dropout=0.0)"))
        == []
    )
    assert find_config_differences(model(), apply_setting(model(), "encoders.image.kernel=3")) == []


def test_values_of_one_name_differ_where_functions_differ() -> None:
    first = fdl.Config(heads.Regression, loss=functools.cmp_to_key)
    assert find_config_differences(first, fdl.Config(heads.Regression))[0].path == "loss"


def test_columns_are_aligned() -> None:
    text = format_config_rows([ConfigRow("a", "int", "1"), ConfigRow("long.path", "", "2")])
    assert text == "a          int  1\nlong.path       2"
