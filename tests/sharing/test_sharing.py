import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.sharing import HardSharing
from tests.tolerance import bound_difference

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
TASKS = ("b", "a")


def test_without_layers_every_task_gets_the_input_itself():
    got, params = HardSharing().init_with_output(jax.random.key(0), X, TASKS, train=False)
    assert not params and set(got) == {"a", "b"}
    for y in got.values():
        np.testing.assert_array_equal(y, X)


def test_every_task_gets_the_same_trunk():
    sharing = HardSharing((5, 6))
    got, params = sharing.init_with_output(jax.random.key(0), X, TASKS, train=False)
    expected = np.asarray(X, np.float64)
    for name in ("dense_0", "dense_1"):
        layer = params["params"][name]
        expected = np.maximum(expected @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    assert set(got) == {"a", "b"} and set(params["params"]) == {"dense_0", "dense_1"}
    for y in got.values():
        np.testing.assert_allclose(y, expected, atol=bound_difference(20))


@pytest.mark.parametrize("train, zeros", [(False, 0), (True, 500)])
def test_dropout_only_while_training(train, zeros):
    sharing = HardSharing((1000,), dropout=0.5)
    params = {"params": {"dense_0": {"kernel": jnp.zeros((4, 1000)), "bias": jnp.ones(1000)}}}
    keys = {"dropout": jax.random.key(0)}
    got = sharing.apply(params, X, TASKS, train=train, rngs=keys)
    assert abs((got["a"][0] == 0).sum() - zeros) <= 0.2 * zeros
    np.testing.assert_array_equal(got["a"], got["b"])
