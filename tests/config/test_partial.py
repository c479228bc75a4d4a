"""A partial of a public function is a value of `--set`; nothing else can be called through it."""

import functools

import fiddle as fdl
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import encoders, heads
from mmjax.config import ConfigError, apply_setting, build_config
from mmjax.config.serialize import dump_config, load_config

HEAD = fdl.Config(heads.Classification, 3)


@pytest.mark.parametrize("name", ["partial", "functools.partial"])
def test_a_partial_is_set_built_and_stored(name):
    setting = f"loss={name}(losses.cross_entropy, label_smoothing=0.25)"
    config = apply_setting(HEAD, setting)
    assert isinstance(config.loss, fdl.Partial)
    for stored in (config, load_config(dump_config(config))):
        loss = build_config(stored).loss
        assert isinstance(loss, functools.partial) and loss.keywords == {"label_smoothing": 0.25}
        # Cross-entropy of three equal logits is log(3), whatever the smoothing.
        np.testing.assert_allclose(loss(jnp.zeros(3), jnp.int32(1)), np.log(3), rtol=1e-6)


def test_a_path_inside_of_a_partial_is_set():
    config = apply_setting(HEAD, "loss=partial(losses.cross_entropy)")
    config = apply_setting(config, "loss.label_smoothing=0.5")
    assert build_config(config).loss.keywords == {"label_smoothing": 0.5}


def test_a_partial_inside_of_a_call():
    setting = "cell=elman(activation=partial(jax.nn.leaky_relu, negative_slope=0.5))"
    config = apply_setting(fdl.Config(encoders.RecurrentEncoder), setting)
    assert float(build_config(config.cell.activation)(jnp.float32(-2))) == -1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss=partial()", r"write partial\(function, argument=value\)"),
        ("loss=partial(3)", r"only a name can be called"),
        (
            "loss=partial(losses.cross_entropi)",
            r"unknown name .* Did you mean losses\.cross_entrop",
        ),
        ("loss=partial(os.system, 'ls')", r"unknown name 'os\.system'"),
        ("loss=partial(losses.cross_entropy, smooth=1)", r"has no parameter 'smooth'"),
        ("loss=partial(losses.cross_entropy, label_smoothing='a')", r"label_smoothing=.* expected"),
        ("loss=partial(losses.cross_entropy, *[1])", r"write the arguments out"),
        ("loss=partial(from_table, 't.csv')", r"a partial of a function that makes data"),
        ("classes=partial(losses.cross_entropy)", r"classes is .*; expected int"),
    ],
)
def test_other_partials_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        apply_setting(HEAD, setting)


def test_a_call_that_lacks_arguments_is_told_of_partials():
    config = apply_setting(HEAD, "loss=losses.focal(gamma=1.0)")
    with pytest.raises(ConfigError, match=r"^loss: .*missing .* 'logits'.*; .*partial\(function"):
        build_config(config)
