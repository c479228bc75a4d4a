"""ConFIG and IMTL-G, which share a direction, against pseudo-inverses in float64."""

import numpy as np
import pytest

from mmjax.balance.gramian.conflict_free import conflict_free_weights
from mmjax.balance.gramian.imtl_g import imtl_g_weights


def config_by_pseudo_inverse(rows):
    """The authors' formula, on the gradients themselves; and how far equal cosines are possible."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    direction = np.linalg.pinv(unit, rcond=1e-4) @ np.ones(len(rows))
    possible = (unit @ direction).mean()
    direction /= np.linalg.norm(direction)
    return (rows @ direction).sum() * direction, possible


def test_config_is_the_pseudo_inverse_of_the_unit_gradients(problems):
    drawn = problems(spread=3)
    got = drawn.weights(conflict_free_weights)
    for w, (rows, _) in zip(got, drawn.each(), strict=True):
        expected, possible = config_by_pseudo_inverse(rows)
        if possible < 1e-6:
            np.testing.assert_array_equal(w, 0)
        else:
            error = np.linalg.norm(w @ rows - expected)
            assert error < 1e-4 * np.linalg.norm(expected), (len(rows), possible)


def test_imtl_g_is_the_solution_of_its_equations(problems):
    """The weights solve the paper's linear system where it has one solution."""
    drawn = problems(spread=1, n=400)
    compared = 0
    for w, (rows, _) in zip(drawn.weights(imtl_g_weights), drawn.each(), strict=True):
        t = len(rows)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        if np.linalg.matrix_rank(rows, tol=1e-4 * np.linalg.norm(rows)) < t:
            continue
        # (u_1 - u_t) . sum_s w_s g_s = 0 for t > 1, and sum_s w_s = 1
        system = np.concatenate([(unit[:1] - unit[1:]) @ rows.T, np.ones((1, t))])
        system[:-1] /= np.abs(rows).max()
        expected = np.linalg.solve(system, np.eye(t)[-1])
        cancelled = np.abs(expected).sum()  # 1 if no weight is negative
        assert np.linalg.norm((w - expected) @ rows) < 1e-4 * cancelled * np.linalg.norm(
            expected @ rows
        )
        compared += 1
    assert compared > 20


def test_imtl_g_has_the_direction_of_config_for_dependent_gradients_too(problems):
    drawn = problems(spread=1)
    compared = 0
    for w, (rows, _) in zip(drawn.weights(imtl_g_weights), drawn.each(), strict=True):
        expected, possible = config_by_pseudo_inverse(rows)
        d = w @ rows
        if possible > 1e-6 and np.linalg.norm(d) > 0:
            cosine = d @ expected / np.linalg.norm(d) / np.linalg.norm(expected)
            assert abs(cosine) > 1 - 1e-6
            np.testing.assert_allclose(w.sum(), 1, rtol=1e-3)
            compared += 1
    assert compared > 150


def test_config_of_independent_gradients_conflicts_with_none(problems):
    drawn = problems(spread=2, seed=1)
    for w, (rows, _) in zip(drawn.weights(conflict_free_weights), drawn.each(), strict=True):
        if np.linalg.matrix_rank(rows, tol=1e-5 * np.linalg.norm(rows, axis=1).min()) == len(rows):
            d = w @ rows
            cosines = rows @ d / np.linalg.norm(rows, axis=1) / np.linalg.norm(d)
            assert cosines.min() > 0
            np.testing.assert_allclose(cosines, cosines[0], rtol=1e-2)


def test_the_bisector_of_two_gradients_in_closed_form(weights):
    """(3, 0) and (0, 1): the bisector is (1, 1) / sqrt(2), as long as (3 + 1) / sqrt(2)."""
    rows = np.array([[3.0, 0], [0, 1]])
    np.testing.assert_allclose(weights(conflict_free_weights, rows) @ rows, [2, 2], rtol=1e-6)
    np.testing.assert_allclose(weights(imtl_g_weights, rows), [0.25, 0.75], rtol=1e-6)


def test_imtl_g_can_climb_every_loss_and_config_does_not(weights):
    """A short gradient that lies between two others has a negative weight, and a large one."""
    unit = np.array([[0.9, 0, np.sqrt(0.19)], [0.8, 0.6, 0], [0.8, -0.6, 0]])
    rows = unit * [[1e-3], [1], [1]]
    assert (rows @ (weights(imtl_g_weights, rows) @ rows) < 0).all()
    assert (rows @ (weights(conflict_free_weights, rows) @ rows) > 0).all()


@pytest.mark.parametrize("method", [conflict_free_weights, imtl_g_weights])
def test_cases_without_an_angle(weights, method):
    g = np.array([1.0, 2, -2])
    np.testing.assert_array_equal(weights(method, [g, -g]) @ np.stack([g, -g]), 0)
    np.testing.assert_array_equal(weights(method, 0 * np.stack([g, -g])), 0)
    alike = weights(method, [g, g])
    np.testing.assert_allclose(alike, [alike.sum() / 2] * 2, rtol=1e-6)
    np.testing.assert_allclose(alike.sum(), 1 if method is imtl_g_weights else 2, rtol=1e-6)
    np.testing.assert_allclose(weights(method, [g]), [1], rtol=1e-6)
    one_zero = weights(method, [g, 0 * g])
    np.testing.assert_allclose(one_zero, [1, 0], rtol=1e-6)


@pytest.mark.parametrize("exponent", [-14, 14])
def test_scale_leaves_the_weights_alone(weights, exponent):
    rows = np.array([[3.0, 0, 1], [0, 1, 1]])
    for method in (conflict_free_weights, imtl_g_weights):
        np.testing.assert_allclose(
            weights(method, rows * 10.0**exponent), weights(method, rows), rtol=1e-5
        )
