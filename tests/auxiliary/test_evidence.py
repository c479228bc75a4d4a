"""Evidence and confidence of late fusion: the rules against their definitions, in float64."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, special, stats

from mmjax import balance, losses
from mmjax.auxiliary import (
    BranchLosses,
    ConfidenceRanking,
    DirichletKL,
    dirichlet_kl,
    rank_confidences,
)
from mmjax.encoders import Features
from mmjax.fusion import Concat, Late
from mmjax.heads import Classification, EnergyWeighted, Evidential
from mmjax.heads.evidential import combine_evidence
from mmjax.model import Model
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch
from tests.tolerance import bound_difference

RNG = np.random.default_rng(0)


def combine_masses(first, second):
    """Dempster's rule by its definition, on mass functions {set of classes: mass}."""
    together, conflict = {}, 0.0
    for (a, x), (b, y) in itertools.product(first.items(), second.items()):
        if a & b:
            together[a & b] = together.get(a & b, 0.0) + x * y
        else:
            conflict += x * y
    return {a: x / (1 - conflict) for a, x in together.items()}


@pytest.mark.parametrize("opinions", [2, 3])
def test_combined_evidence_is_dempsters_rule_on_mass_functions(opinions):
    classes = 3
    evidence = RNG.exponential(5.0, (opinions, classes))
    everything = frozenset(range(classes))
    masses = []
    for e in evidence:
        total = e.sum() + classes
        masses.append({frozenset({k}): e[k] / total for k in range(classes)})
        masses[-1][everything] = classes / total
    expected = functools.reduce(combine_masses, masses)
    assert sum(expected.values()) == pytest.approx(1)
    alpha = np.exp(combine_evidence(jnp.asarray(np.log1p(evidence), jnp.float32)[:, None])[0])
    uncertainty = classes / alpha.sum()
    assert uncertainty == pytest.approx(expected[everything], rel=bound_difference(200))
    beliefs = [expected[frozenset({k})] for k in range(classes)]
    np.testing.assert_allclose((alpha - 1) / alpha.sum(), beliefs, rtol=bound_difference(200))


def test_absent_opinions_have_no_effect_and_huge_evidence_stays_finite():
    log_alpha = jnp.asarray(RNG.exponential(1.0, (3, 4, 5)), jnp.float32)
    present = jnp.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]], bool)
    dirty = jnp.where(present[..., None], log_alpha, jnp.nan)

    def total(x):
        return combine_evidence(x, present).sum()

    got, slope = jax.value_and_grad(total)(dirty)
    assert got == total(log_alpha) and (slope[~present] == 0).all() and jnp.isfinite(slope).all()
    np.testing.assert_array_equal(combine_evidence(dirty, present)[3], 0)
    alone = combine_evidence(dirty, present)[1]
    np.testing.assert_allclose(alone, log_alpha[0, 1], atol=bound_difference(20))
    assert jnp.isfinite(combine_evidence(jnp.full((6, 1, 3), 70.0))).all()


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (3.0, 1.5), (40.0, 7.0)])
def test_the_loss_and_the_divergence_are_integrals(alpha):
    density = stats.beta(*alpha).pdf
    loss = integrate.quad(lambda p: -np.log(p) * density(p), 0, 1)[0]
    got = losses.dirichlet_cross_entropy(jnp.log(jnp.array(alpha)), jnp.array(0))
    assert float(got) == pytest.approx(loss, rel=1e-5)
    soft = losses.dirichlet_cross_entropy(jnp.log(jnp.array(alpha)), jnp.array([1.0, 0.0]))
    assert float(soft) == float(got)
    kl = integrate.quad(lambda p: density(p) * np.log(density(p)), 0, 1)[0]
    assert float(dirichlet_kl(jnp.array(alpha))) == pytest.approx(kl, rel=1e-5, abs=1e-6)


def test_the_divergence_is_exact_for_large_evidence():
    alpha = np.concatenate([1 + RNG.exponential(50, (20, 4)), 10.0 ** RNG.uniform(0, 6, (20, 4))])
    total = alpha.sum(axis=1)
    expected = special.gammaln(total) - special.gammaln(4) - special.gammaln(alpha).sum(axis=1)
    change = special.digamma(alpha) - special.digamma(total)[:, None]
    expected += ((alpha - 1) * change).sum(axis=1)
    got = dirichlet_kl(jnp.asarray(alpha, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def test_energy_weights_the_logits():
    logits = {m: jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32) for m in ("a", "b")}
    weights = {"a": jnp.array([0.5, 0.0, 1.0]), "b": jnp.array([0.5, 1.0, 0.0])}
    got = EnergyWeighted(4).combine(logits, weights)
    for i in range(3):
        terms = [
            special.logsumexp(np.float64(logits[m][i])) / 10 * np.float64(logits[m][i])
            for m in logits
            if weights[m][i] > 0
        ]
        np.testing.assert_allclose(got[i], sum(terms), rtol=1e-5, atol=1e-6)


def test_confidences_are_ranked_by_the_paper():
    confidence, loss = RNG.normal(size=6), RNG.exponential(size=6)
    counted = np.array([1, 1, 0, 1, 1, 1], bool)
    kappa = (loss - loss[counted].min()) / (loss[counted].max() - loss[counted].min())
    terms = []
    for i, j in itertools.combinations(np.flatnonzero(counted), 2):
        sign = np.sign(kappa[i] - kappa[j])
        gap = sign * (confidence[i] - confidence[j]) + abs(kappa[i] - kappa[j])
        terms.append(max(0.0, gap))
    dirty = np.where(counted, loss, np.nan)
    got = jax.jit(rank_confidences)(jnp.float32(confidence), jnp.float32(dirty), counted)
    assert float(got) == pytest.approx(np.mean(terms), rel=1e-5)
    same = jnp.ones(6)
    assert float(rank_confidences(jnp.float32(confidence), same, jnp.asarray(counted))) == 0


def make_batch():
    present = {"a": np.array([1, 1, 0, 0], bool), "b": np.array([1, 0, 1, 1], bool)}
    inputs = {m: RNG.normal(size=(4, 3)).astype(np.float32) for m in present}
    labeled = {"kind": np.array([1, 1, 1, 0], bool)}
    return jax.tree.map(
        jnp.asarray, Batch(inputs, present, {}, {"kind": np.arange(4) % 3}, labeled)
    )


def make_tmc(**auxiliary):
    encoders = {"a": Features(), "b": Features()}
    return Model(encoders, Late(4, joint=True), {"kind": Evidential(3)}, auxiliary=auxiliary)


@pytest.mark.slow
def test_the_objectives_of_tmc_are_its_loss():
    """Those of all views and of the combination, as in the paper, example by example."""
    batch = make_batch()
    model = make_tmc(views=BranchLosses(), kl=DirichletKL(("kind",), annealing_steps=0))
    variables = model.init(jax.random.key(0), batch, method="call_all_parts")
    features, seen = model.apply(
        variables, *batch[:3], train=True, method="represent_and_record", mutable=["intermediates"]
    )[0]
    views = {}

    def record(next_fun, args, kwargs, context):
        output = next_fun(*args, **kwargs)
        if isinstance(context.module, Evidential) and context.method_name == "__call__":
            views[context.module.name] = np.float64(np.exp(output))
        return output

    with jax.disable_jit(), nn.intercept_methods(record):
        combined = np.exp(model.apply(variables, features, train=True, method="predict")["kind"])
    sums = model.apply(
        variables,
        dict.fromkeys(model.auxiliary, seen),
        batch,
        train=True,
        gather=lambda x: x,
        method="compute_objectives",
    )
    loss, divergence = 0.0, 0.0
    for i in range(3):
        y = int(batch.targets["kind"][i])
        opinions = [
            views[f"branch_heads_{m}_kind"][i]
            for m in ("a", "b", "joint")
            if m == "joint" or batch.present[m][i]
        ]
        loss += sum(special.digamma(x.sum()) - special.digamma(x[y]) for x in opinions)
        for x in [*opinions, np.float64(combined[i])]:
            x = np.where(np.arange(3) == y, 1.0, x)
            divergence += special.gammaln(x.sum()) - special.gammaln(3) - special.gammaln(x).sum()
            divergence += ((x - 1) * (special.digamma(x) - special.digamma(x.sum()))).sum()
    np.testing.assert_allclose(sums["views"], (loss, 3), rtol=1e-5)
    np.testing.assert_allclose(sums["kl"], (divergence, 3), rtol=1e-4)


@pytest.mark.slow
def test_the_divergence_is_annealed_by_the_step_and_only_in_training():
    batch, optimizer = make_batch(), optax.sgd(0.0)
    model = make_tmc(kl=DirichletKL(("kind",), annealing_steps=4))
    state = init_state(model, optimizer, balance.equal(), batch, jax.random.key(0))
    step = jax.jit(make_train_step(model, optimizer, balance.equal()))
    totals = []
    for _ in range(6):
        state, metrics = step(state, batch)
        totals.append(float(metrics["loss/kl"][0]))
    np.testing.assert_allclose(np.array(totals) / totals[-1], [0, 0.25, 0.5, 0.75, 1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "objective, model, message",
    [
        (BranchLosses(), {}, "BranchLosses needs late fusion"),
        (ConfidenceRanking(("kind",)), {}, "ConfidenceRanking needs late fusion"),
        (BranchLosses(("size",)), {"fusion": Late(4)}, "names the task 'size'"),
        (DirichletKL(("size",)), {"fusion": Late(4)}, "names the task 'size'"),
    ],
)
def test_what_does_not_fit_is_refused(objective, model, message):
    options = {"fusion": Concat(), "heads": {"kind": Classification(3)}} | model
    model = Model({"a": Features(), "b": Features()}, auxiliary={"extra": objective}, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(model.init, method="call_all_parts"), jax.random.key(0), make_batch()
        )


def test_a_modality_must_not_have_the_name_of_a_branch():
    with pytest.raises(ValueError, match="'joint' is that of a branch"):
        Model({"joint": Features()}, Late(4, joint=True), {"kind": Classification(3)})
    with pytest.raises(ValueError, match="annealing_steps is -1"):
        DirichletKL(("kind",), annealing_steps=-1)
