"""An encoder of one run becomes an encoder of another model."""

import jax
import numpy as np
import pytest

from mmjax import files
from mmjax.pretrained import Rename, weights
from mmjax.train.loop import fit


@pytest.mark.slow
def test_best_parameters_of_a_seed(toy, tmp_path):
    arm = tmp_path / "all"
    fitted = fit(toy.experiment(epochs=1), arm, seeds=(3, 5))
    files.write_json(tmp_path / "run.json", {"seeds": [3, 5]})
    best = jax.device_get(fitted.state.best_params)
    encoder = {k: jax.tree.map(lambda x: x[0], best)[k] for k in ("encoders_vector",)}
    empty = jax.tree.map(np.zeros_like, encoder)["encoders_vector"]
    for seed, i in ((None, 0), (3, 0), (5, 1)):
        loaded = weights(arm, prefix="encoders_vector/", seed=seed).apply(empty)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a, b[i]),
            loaded,
            best["encoders_vector"],
        )
    names = (Rename("encoders_vector/*", "encoders_other/*"), Rename("*", None))
    loaded = weights(arm, names).apply({"encoders_other": empty})
    assert jax.tree.leaves(loaded)[0].any()
    with pytest.raises(ValueError, match=r"has no seed 4, only \[3, 5\]"):
        weights(arm, seed=4).apply(empty)
    digest = weights(arm).compute_digest()
    fit(toy.experiment(epochs=2), arm, seeds=(3, 5))
    assert weights(arm).compute_digest() != digest
