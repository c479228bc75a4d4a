"""Shapley values and interactions: axioms on random games, and slow versions in float64."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmjax.modalities.contribution import (
    compute_conditional_utilization,
    compute_interaction_indices,
    compute_intershap,
    compute_shapley_values,
)


@st.composite
def games(draw, smallest=1):
    count = draw(st.integers(smallest, 4))
    return draw(hnp.arrays(np.float64, 2**count, elements=st.floats(-10, 10, width=32)))


def average_over_orders(values):
    """What each modality adds when it comes, averaged over all orders of the modalities."""
    count = int(math.log2(len(values)))
    orders = list(itertools.permutations(range(count)))
    added = np.zeros(count)
    for order in orders:
        row = 0
        for m in order:
            added[m] += values[row | 1 << m] - values[row]
            row |= 1 << m
    return added / len(orders)


def average_pairs_over_orders(values):
    """Each pair's interaction, the two as one player: averaged over orders, and halved."""
    count = int(math.log2(len(values)))
    indices = np.zeros((count, count))
    for i, j in itertools.combinations(range(count), 2):
        others = [m for m in range(count) if m not in (i, j)]
        orders = list(itertools.permutations([*others, "pair"]))
        for order in orders:
            row = sum(1 << m for m in order[: order.index("pair")])
            a, b = row | 1 << i, row | 1 << j
            indices[i, j] += values[a | b] - values[a] - values[b] + values[row]
        indices[j, i] = indices[i, j] = indices[i, j] / len(orders) / 2
    return indices


@given(games())
@settings(max_examples=50)
def test_shapley_values_are_averages_over_orders_and_sum_to_the_whole(values):
    shapley = compute_shapley_values(values)
    np.testing.assert_allclose(shapley, average_over_orders(values), atol=1e-12)
    assert shapley.sum() == pytest.approx(values[-1] - values[0], abs=1e-12)


@given(games(smallest=2))
@settings(max_examples=50)
def test_interactions_are_averages_over_orders_and_sum_to_the_shapley_values(values):
    indices = compute_interaction_indices(values)
    off_diagonal = ~np.eye(len(indices), dtype=bool)
    expected = average_pairs_over_orders(values)
    np.testing.assert_allclose(indices[off_diagonal], expected[off_diagonal], atol=1e-12)
    np.testing.assert_allclose(indices.sum(axis=1), compute_shapley_values(values), atol=1e-12)


@given(games(), st.integers(0, 3))
@settings(max_examples=50)
def test_a_modality_that_changes_nothing_has_zero(values, m):
    count = int(math.log2(len(values)))
    m %= count
    rows = np.arange(len(values))
    null = values[rows & ~(1 << m)]
    assert compute_shapley_values(null)[m] == 0
    assert not compute_interaction_indices(null)[m].any()


@given(games(smallest=2))
@settings(max_examples=50)
def test_modalities_that_are_alike_have_the_same(values):
    """Exchanging the first two modalities exchanges their values."""
    rows = np.arange(len(values))
    swapped = rows & ~3 | (rows & 1) << 1 | (rows & 2) >> 1
    order = [1, 0, *range(2, int(math.log2(len(values))))]
    np.testing.assert_allclose(
        compute_shapley_values(values[swapped]), compute_shapley_values(values)[order], atol=1e-12
    )


@given(games(smallest=2), st.floats(-3, 3))
@settings(max_examples=20)
def test_shapley_values_are_linear_over_further_axes(values, factor):
    stacked = np.stack([values, factor * values], axis=1)
    shapley = compute_shapley_values(stacked)
    np.testing.assert_allclose(shapley[:, 1], factor * shapley[:, 0], atol=1e-9)
    assert compute_interaction_indices(stacked).shape == (*2 * shapley.shape[:1], 2)


def test_intershap_of_known_games():
    games = np.array(
        [
            [0, 0, 0, 1],  # XOR: all is interaction
            [0, 1, 0, 1],  # unique
            [0, 1, 1, 1],  # two copies: 1 of 3
            [3, 3, 3, 3],  # constant
        ],
        float,
    ).T
    np.testing.assert_allclose(compute_intershap(games), [1, 0, 1 / 3, np.nan])


def test_conditional_utilization_is_the_share_lost():
    values = np.array([0.25, 0.5, 0.6, 0.8, 0.4, 0.7, 0.75, 0.9])
    expected = [(0.9 - 0.75) / 0.9, (0.9 - 0.7) / 0.9, (0.9 - 0.8) / 0.9]
    np.testing.assert_allclose(compute_conditional_utilization(values), expected)
    # An error, negated so that more is better: half of it would double without the modality.
    np.testing.assert_allclose(compute_conditional_utilization(np.array([-4.0, -2.0])), [1.0])


def test_a_game_of_three_values_is_refused():
    with pytest.raises(ValueError, match="3 values"):
        compute_shapley_values(np.zeros(3))


def test_the_example_of_the_documentation_runs(capsys):
    page = Path(__file__).parents[3] / "docs" / "contribution.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})
    assert capsys.readouterr().out.startswith("[0.25 0.25]\n")
