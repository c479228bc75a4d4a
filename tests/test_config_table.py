"""`list_config_rows`, `flatten_config` and `find_config_differences`: the table of paths."""

import functools

import fiddle as fdl
import optax

from mmjax import encoders, fusion, heads, losses
from mmjax.config import Difference, Row, apply, describe, difference, flatten
from mmjax.config.config_table import format_rows
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
    assert describe(model()) == [
        Row("encoders.image", "Module", "ConvEncoder(...)"),
        Row("encoders.image.features", "tuple[int, ...]", "(32, 64)"),
        Row("encoders.image.kernel", "int | tuple[int, ...]", "3"),
        Row("encoders.image.width", "int | None", "5"),
        Row("encoders.image.padding", "'SAME' | 'VALID'", "'SAME'"),
        Row("encoders.image.norm", "bool", "False"),
        Row("fusion", "Module", "Concat()"),
        Row("heads.digit", "Module", "Classification(...)"),
        Row("heads.digit.classes", "int", "10"),
        Row("heads.digit.hidden", "tuple[int, ...]", "()"),
        Row("heads.digit.loss", "Callable", "partial cross_entropy(...)"),
        Row("heads.digit.loss.label_smoothing", "float", "0.1"),
        Row("sharing", "Module", "HardSharing(...)"),
        Row("sharing.features", "tuple[int, ...]", "()"),
        Row("sharing.dropout", "float", "0.0"),
        Row("shared", "tuple[str, ...] | None", "None"),
        Row("missing", "'mask' | 'zeros' | 'token'", "'mask'"),
        Row("auxiliary", "Mapping[str, Callable]", "{}"),
    ]


def test_every_leaf_of_the_table_can_be_set_to_its_own_value() -> None:
    config = model()
    for path, _, value in describe(config):
        if "(..." not in value:
            same = apply(config, f"{path}={value}")
            assert flatten(same) == flatten(config), path


def test_missing_arguments_show_as_required() -> None:
    assert flatten(fdl.Config(optax.adam))["learning_rate"] == "(required)"


def test_types_of_optax_are_short() -> None:
    types = {row.path: row.type for row in describe(fdl.Config(optax.adamw))}
    assert types["learning_rate"] == "float | Callable"
    assert types["b1"] == "float"
    assert types["nesterov"] == "bool"


def test_difference_lists_both_values() -> None:
    other = apply(apply(model(), "encoders.image.width=6"), "fusion=Gated(width=3)")
    assert difference(model(), other) == [
        Difference("encoders.image.width", "5", "6"),
        Difference("fusion", "Concat()", "Gated(...)"),
        Difference("fusion.width", None, "3"),
    ]
    assert difference(other, model())[-1] == Difference("fusion.width", "3", None)


def test_a_default_written_out_is_no_difference() -> None:
    assert difference(model(), apply(model(), "sharing=HardSharing(dropout=0.0)")) == []
    assert difference(model(), apply(model(), "encoders.image.kernel=3")) == []


def test_values_of_one_name_differ_where_functions_differ() -> None:
    first = fdl.Config(heads.Regression, loss=functools.cmp_to_key)
    assert difference(first, fdl.Config(heads.Regression))[0].path == "loss"


def test_columns_are_aligned() -> None:
    text = format_rows([Row("a", "int", "1"), Row("long.path", "", "2")])
    assert text == "a          int  1\nlong.path       2"
