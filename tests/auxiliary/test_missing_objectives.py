"""Objectives for missing modalities against slow float64 versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from mmjax.auxiliary import MarginDistillation, ShaSpecLosses, Sown, relation_distance
from mmjax.auxiliary.contrastive import mix_neighbors
from mmjax.encoders import Features
from mmjax.fusion import ActionMAE, ShaSpec
from mmjax.fusion.pooling import Pooled
from mmjax.heads import Classification
from mmjax.inspection.model_check import check_model_fits_batch
from mmjax.model import Model
from mmjax.types import Batch, Intermediates
from tests.auxiliary.test_table import make_teacher

RNG = np.random.default_rng(0)
EMPTY = Batch({}, {}, {}, {}, {})


def test_relations_are_compared_by_the_papers_formula():
    student, teacher = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))
    logits, counted = 3 * RNG.normal(size=(5, 4)), np.array([1, 1, 0, 1, 1], bool)

    def relate(x):
        gram = x[counted] @ x[counted].T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    p = special.softmax(logits[counted], axis=1)
    entropy = -(p * np.log(p)).sum(axis=1)
    distances = ((relate(student) - relate(teacher)) ** 2).sum(axis=1)
    dirty = np.where(counted[:, None], student, np.nan)
    arguments = [jnp.float32(x) for x in (dirty, teacher, logits)]
    got, slope = jax.value_and_grad(relation_distance)(*arguments, jnp.asarray(counted))
    assert float(got) == pytest.approx((entropy / entropy.sum()) @ distances, rel=1e-5)
    assert jnp.isfinite(slope).all() and (slope[2] == 0).all()
    certain = jnp.array([[1e4, 0.0]] * 5)
    assert float(relation_distance(arguments[0], arguments[1], certain, jnp.asarray(counted))) == 0


def test_shared_and_specific_losses_are_the_papers():
    present = {"a": [1, 1, 0, 0], "b": [1, 0, 1, 0], "c": [1, 1, 1, 0]}
    features = {
        m: (RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), np.array(has, bool))
        for m, has in present.items()
    }
    seen = Intermediates({}, None, {}, {"fusion": {"shared_specific": features}})
    objective, options = ShaSpecLosses(0.5, 0.25), {"train": True, "gather": lambda x: x}
    (total, count), variables = objective.init_with_output(
        jax.random.key(0), jax.tree.map(jnp.asarray, seen), {}, EMPTY, **options
    )
    layer = variables["params"]["domain"]
    expected = 0.0
    for i in range(4):
        for m, n in (("a", "b"), ("a", "c"), ("b", "c")):
            if present[m][i] and present[n][i]:
                expected += 0.5 * np.abs(features[m][0][i] - features[n][0][i]).mean()
        for j, m in enumerate("abc"):
            if present[m][i]:
                logits = features[m][1][i] @ np.float64(layer["kernel"])
                expected -= 0.25 * special.log_softmax(logits + np.float64(layer["bias"]))[j]
    assert count == 3 and float(total) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"use fusion\.ShaSpec"):
        objective.init(
            jax.random.key(0), Intermediates({}, None, {}, {"fusion": {}}), {}, EMPTY, **options
        )


def test_of_a_sown_pair_only_the_marked_elements_count():
    pair = (jnp.array([[1.0, jnp.nan], [3.0, 5.0]]), jnp.array([[True, False], [True, False]]))
    seen = Intermediates({}, None, {}, {"fusion": {"reconstruction": pair}, "sharing": {}})
    objective = Sown("fusion", "reconstruction")
    assert objective(seen, {}, EMPTY, train=True, gather=lambda x: x) == (4.0, 2.0)


@pytest.mark.parametrize(
    "fusion, objective",
    [
        (ShaSpec(4), ShaSpecLosses()),
        (ActionMAE(4, heads=2), Sown("fusion", "reconstruction")),
    ],
)
def test_the_check_of_a_model_sees_what_fusions_sow(fusion, objective):
    x, yes = jnp.ones((3, 2)), jnp.ones(3, bool)
    encoders = {"a": Features(), "b": Features()}
    model = Model(encoders, fusion, {"y": Classification(2)}, auxiliary={"extra": objective})
    inputs, present = {"a": x, "b": x}, {"a": yes, "b": yes}
    batch = Batch(inputs, present, {}, {"y": jnp.zeros(3, int)}, {"y": yes})
    trace = check_model_fits_batch(model, batch)
    assert "auxiliary_extra" in trace.calls and "intermediates" not in trace.variables


def test_neighbors_are_mixed_by_one_share_for_all_modalities():
    present = {"a": np.array([1, 1, 1, 1, 1], bool), "b": np.array([1, 1, 1, 0, 1], bool)}
    values = {m: RNG.normal(size=(5, 3)) * present[m][:, None] for m in present}
    vectors = {m: Pooled(jnp.float32(values[m]), jnp.asarray(present[m])) for m in present}
    mixed = mix_neighbors(jax.random.key(0), vectors, 2.0)
    neighbor = [1, 0, 3, 2, 4]
    shares = []
    for i, j in enumerate(neighbor):
        if i in (2, 4):  # whose neighbor lacks b, and who has none
            for m in present:
                np.testing.assert_allclose(mixed[m].values[i], values[m][i], rtol=1e-6)
            continue
        has = [m for m in present if present[m][i]]
        own, other = (np.concatenate([values[m][k] for m in has]) for k in (i, j))
        found = np.concatenate([mixed[m].values[i] for m in has])
        # Of the largest difference the share has the smallest error.
        k = np.argmax(abs(own - other))
        share = float((found[k] - other[k]) / (own[k] - other[k]))
        np.testing.assert_allclose(found, share * own + (1 - share) * other, atol=1e-5)
        assert 0 < share < 1
        shares.append(share)
    assert len(set(shares)) == 3
    for m in present:
        np.testing.assert_array_equal(mixed[m].present, present[m])


def test_a_teacher_without_the_task_is_refused():
    with pytest.raises(ValueError, match="names the task 'size', but the teacher has only"):
        MarginDistillation(make_teacher(), "size")
