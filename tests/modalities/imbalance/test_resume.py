"""Training with methods against imbalance resumes to the same bits."""

import dataclasses

import chex
import jax
import pytest

from mmjax import balance
from mmjax.heads import Classification
from mmjax.modalities.imbalance import (
    ClusterImpurity,
    GradientDirection,
    UnimodalLoss,
    agm,
    cggm,
    gradient_blend,
    info_reg,
    modulated,
    relearn,
)
from mmjax.train.loop import fit

LOSSES = {f"only_{m}": UnimodalLoss(m, "kind", Classification(4)) for m in ("vector", "sequence")}
IMPURITIES = {f"impurity_{m}": ClusterImpurity(m, "kind", 4) for m in ("vector", "sequence")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "balancer, auxiliary",
    [
        (gradient_blend(dict.fromkeys(LOSSES, "kind")), LOSSES),
        (modulated(balance.equal(), agm()), {}),
        (
            modulated(balance.equal(), cggm()),
            {"direction": GradientDirection("kind", Classification(4))},
        ),
        (
            relearn(
                info_reg(balance.equal(), steps=3),
                {name: loss.modality for name, loss in IMPURITIES.items()},
            ),
            IMPURITIES,
        ),
    ],
    ids=["gradient_blend", "agm", "cggm", "relearn and info_reg"],
)
def test_a_run_in_two_parts_is_the_run_in_one(toy, tmp_path, balancer, auxiliary):
    """The second part goes on from weights, histories and losses that the checkpoint holds."""
    model = toy.model().clone(auxiliary=auxiliary)
    experiment = toy.experiment(model=model, balancer=balancer, epochs=4)
    options = {"seeds": (0, 1), "devices": jax.devices()[:1]}
    whole = fit(experiment, tmp_path / "whole", **options)
    fit(dataclasses.replace(experiment, epochs=2), tmp_path / "parts", **options)
    parts = fit(experiment, tmp_path / "parts", **options)
    assert parts.state.steps_done == whole.state.steps_done
    for found, expected in zip(
        *(
            jax.device_get((r.state.train.all_variables, r.state.train.balancer_state))
            for r in (parts, whole)
        ),
        strict=True,
    ):
        chex.assert_trees_all_equal(found, expected)
    first = fit(dataclasses.replace(experiment, epochs=2), tmp_path / "first", **options)
    states = (jax.tree.leaves(r.state.train.balancer_state) for r in (first, whole))
    assert any((a != b).any() for a, b in zip(*states, strict=True))
