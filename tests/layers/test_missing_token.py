"""Missing modalities that one token replaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import Concat, Mean
from mmjax.layers.missing_token import MissingToken
from mmjax.sharing import TaskSpecific
from mmjax.types import Tokens
from tests.tolerance import bound_difference


@pytest.mark.parametrize("learned", [False, True])
def test_a_missing_modality_becomes_one_token(learned):
    values = jnp.arange(12.0).reshape(3, 2, 2)
    mask = jnp.array([[True, True], [False, False], [True, False]])
    token = jnp.array([7.0, -7.0]) if learned else jnp.zeros(2)
    params = {"params": {"token": token}} if learned else {}
    got = MissingToken(learned).apply(params, Tokens(values, mask))
    np.testing.assert_array_equal(got.mask, [[True, True], [True, False], [True, False]])
    np.testing.assert_array_equal(got.values[jnp.array([0, 2])], values[jnp.array([0, 2])])
    np.testing.assert_array_equal(got.values[1], [token, values[1, 1]])


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param("zeros", marks=pytest.mark.slow),
        "token",
        pytest.param("bank", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "sharing",
    [pytest.param(None, marks=pytest.mark.slow), TaskSpecific((4,))],
    ids=["hard", "specific"],
)
def test_the_model_takes_the_stand_in(toy, missing, sharing):
    options = {} if sharing is None else {"sharing": sharing}
    model = toy.model(Mean(4), missing=missing, **options)
    batch = toy.batch(12, 0)
    inputs = {m: np.where(batch.present[m].reshape(-1, *[1] * (x.ndim - 1)), x, np.nan)
              for m, x in batch.inputs.items()}  # fmt: skip
    variables = model.init(jax.random.key(0), *batch[:3], train=False)

    @jax.jit
    def run(variables, inputs):
        def loss(variables):
            out = model.apply(variables, inputs, batch.present, batch.lengths, train=False)
            return sum(jnp.sin(x).sum() for x in out.values()), out

        return jax.grad(loss, has_aux=True)(variables)

    (clean, out), (dirty, again) = run(variables, batch.inputs), run(variables, inputs)
    for a, b in zip(jax.tree.leaves((clean, out)), jax.tree.leaves((dirty, again)), strict=True):
        np.testing.assert_array_equal(a, b)
    tokens = {k: v for k, v in clean["params"].items() if "stand_ins" in k}
    assert len(tokens) == (0 if missing == "zeros" else 2)
    for gradient in jax.tree.leaves(tokens):
        assert jnp.abs(gradient).max() > 0
    masked = toy.model(Mean(4), **options)
    without = {k: v for k, v in variables["params"].items() if k not in tokens}
    plain = masked.apply({"params": without}, *batch[:3], train=False)["size"]
    gap = ~(batch.present["vector"] & batch.present["sequence"])
    np.testing.assert_allclose(plain[~gap], out["size"][~gap], atol=bound_difference(50))
    assert (jnp.abs(plain - out["size"])[gap] > 1e-4).any()


def test_an_unknown_way_is_refused(toy):
    with pytest.raises(Exception, match="missing"):
        toy.model(Concat(), missing="mean")
