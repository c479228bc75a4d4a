"""Predictions from subsets of the modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import MLPEncoder, RecurrentEncoder
from mmjax.fusion import Concat, EarlyTransformer, Late
from mmjax.heads import Classification
from mmjax.modalities.subsets import make_all_subsets, name_subset, predict_from_subsets
from mmjax.model import Model
from mmjax.sharing import HardSharing, MMoE, TaskSpecific
from mmjax.types import Batch


def init(model, batch):
    return model.init(jax.random.key(0), *batch[:3], train=False)


@pytest.mark.parametrize("missing", ["mask", "token", "bank"])
@pytest.mark.parametrize(
    "fusion, sharing",
    [
        (Concat(), HardSharing((5,))),
        (Late(6), HardSharing()),
        (Concat(), TaskSpecific()),
        pytest.param(EarlyTransformer(width=8, heads=2), MMoE(3, (4,)), marks=pytest.mark.slow),
    ],
)
def test_a_hidden_modality_is_as_one_that_is_missing(toy, fusion, sharing, missing):
    """Each subset alone, by taking the other modalities away from the batch."""
    model = toy.model(fusion).clone(sharing=sharing, missing=missing)
    batch = jax.tree.map(jnp.asarray, toy.batch(12, 0))
    variables = init(model, batch)
    modalities = sorted(model.encoders)
    subsets = make_all_subsets(len(modalities))
    found = jax.jit(lambda v, b: predict_from_subsets(model, v, b, subsets))(variables, batch)
    for i, subset in enumerate(subsets):
        present = {m: batch.present[m] & has for m, has in zip(modalities, subset, strict=True)}
        expected = model.apply(variables, batch.inputs, present, batch.lengths, train=False)
        for task, values in expected.items():
            np.testing.assert_allclose(found[task][i], values, rtol=1e-5, atol=1e-5, err_msg=task)


def test_the_encoders_run_once():
    """The scan of the recurrent encoder has no axis of the 7 subsets."""
    parts = {"a": RecurrentEncoder(width=8), "b": MLPEncoder((3,))}
    model = Model(parts, Concat(), {"y": Classification(2)})
    present = {m: jnp.ones(5, bool) for m in parts}
    inputs = {"a": jnp.ones((5, 9, 4)), "b": jnp.ones((5, 2))}
    batch = Batch(inputs, present, {"a": jnp.full(5, 9)}, {}, {})
    subsets = np.ones((7, 2), bool)
    jaxpr = jax.make_jaxpr(lambda v: predict_from_subsets(model, v, batch, subsets))(
        init(model, batch)
    )
    scans = [e for e in _list_equations(jaxpr.jaxpr) if e.primitive.name == "scan"]
    assert scans
    assert all(7 not in v.aval.shape for scan in scans for v in scan.outvars)


def _list_equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _list_equations(inner)


def test_subsets_are_named_as_in_the_facts_of_interactions():
    names = [name_subset(s, "abc") for s in make_all_subsets(3)]
    assert names == ["none", "a", "b", "a+b", "c", "a+c", "b+c", "a+b+c"]
