"""Rematerialized modules compute the same, and keep less."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import encoders, fusion, heads
from mmjax.layers.rematerialize import rematerialize_modules
from mmjax.model import Model
from mmjax.sharing import HardSharing, MMoE
from mmjax.train.checks.memory_check import check_remat
from mmjax.train.hardware.compilation import compile_with_options
from mmjax.types import Tokens
from tests.tolerance import bound_difference

KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}


class Layer(nn.Module):
    """A layer that keeps several arrays for its backward pass."""

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(x.shape[-1])(x)
        return jnp.sin(y) * jnp.cos(y) * nn.tanh(y)


class NormalizedLayers(nn.Module):
    """An encoder of a researcher's own, with batch norms, dropout and a scan over layers."""

    @nn.compact
    def __call__(self, x, length=None, *, train):
        def apply_layer(layer, x):
            return nn.tanh(layer(x)), None

        x = nn.BatchNorm(momentum=0.9, name="norm")(nn.Dense(6, name="first")(x))
        scan = nn.scan(
            apply_layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scan(nn.Dense(6, name="layers"), x)
        x = nn.Dropout(0.3, deterministic=not train)(x)
        return Tokens(x[:, None], jnp.ones((len(x), 1), bool))


def make_model(sharing, remat=()):
    return Model(
        {"image": encoders.MLPEncoder((4,)), "vector": NormalizedLayers()},
        fusion.EarlyTransformer(8, layers=1, heads=2, dropout=0.2),
        {"kind": heads.Classification(3)},
        sharing,
        missing="token",
        remat=remat,
    )


def differentiate(model, variables, inputs):
    """Returns loss, updated batch statistics and gradients of a training pass, and the jaxpr."""

    def compute(params):
        features, updated = model.apply(
            {**variables, "params": params},
            *inputs,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            method="represent",
            mutable=["batch_stats"],
        )
        return (features["kind"] ** 2).sum(), updated

    traced = jax.jit(jax.value_and_grad(compute, has_aux=True)).trace(variables["params"])
    return traced.lower().compile()(variables["params"]), traced.jaxpr


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    values = {"image": rng.normal(size=(4, 4, 4)), "vector": rng.normal(size=(4, 5))}
    present = {"image": np.array([1, 1, 0, 1], bool), "vector": np.array([1, 0, 1, 1], bool)}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), values), present, {}


def count_checkpoints(jaxpr):
    text = str(jaxpr)
    return max(text.count("remat2["), text.count("checkpoint["))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sharing", "patterns"),
    [
        (HardSharing((4,)), ("*/layer*",)),
        (HardSharing((4,)), ("encoders_*", "fusion")),
        (MMoE(2, (4,), backbones=True), ("encoders_*",)),
    ],
)
def test_values_gradients_statistics_and_dropout_are_the_same(inputs, sharing, patterns):
    model = make_model(sharing)
    variables = model.init(jax.random.key(0), *inputs, train=False)
    plain, without = differentiate(model, variables, inputs)
    again, with_remat = differentiate(model.clone(remat=patterns), variables, inputs)
    chex.assert_trees_all_close(plain, again, atol=bound_difference(16, 16.0))
    assert count_checkpoints(with_remat) > count_checkpoints(without) == 0
    leaves = jax.tree.leaves(again[1])
    assert any(np.abs(x).max() > 1e-3 for x in leaves)


def test_the_backward_pass_keeps_less():
    """Of ten layers, the arrays of one, and one of each of the others."""
    model, x = nn.Sequential([Layer() for _ in range(10)]), jnp.ones((4096, 16))
    variables = model.init(jax.random.key(0), x)

    def compute(variables, patterns):
        with rematerialize_modules(patterns):
            return model.apply(variables, x).sum()

    def measure(patterns):
        lowered = jax.jit(jax.grad(compute), static_argnums=1).lower(variables, patterns)
        compiled = compile_with_options(lowered, KEEP_BARRIERS)
        return compiled.memory_analysis().temp_size_in_bytes, compiled(variables)

    (whole, plain), (less, again) = measure(()), measure(("layers_*",))
    assert 9 * x.nbytes < less < 0.7 * whole
    chex.assert_trees_all_close(plain, again, rtol=1e-4)


def test_patterns_that_match_nothing_are_refused():
    params = {"encoders_image": {"stack": {"layer_0": {"kernel": 0}}}, "own_fusion": {"w": 0}}
    check_remat(("*/layer*", "encoders_image", "fusion"), params)
    with pytest.raises(ValueError, match=r"'encoder_image', which .* mean encoders_image,"):
        check_remat(("encoder_image",), params)
    with pytest.raises(ValueError, match=r"'encoders_image/stack/layer_0/kernel'"):
        check_remat(("encoders_image/stack/layer_0/kernel",), params)
