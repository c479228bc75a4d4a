"""Statistics: closed forms, published numbers, and error rates by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from mmjax.intervals import compute_mean_interval
from mmjax.report import rank_tests, statistics

NAN = float("nan")


def test_an_interval_is_mean_and_t_times_the_standard_error():
    """Of 0.8, 0.9 and 1.0: t(0.975, 2) = 4.302653, standard error 0.1 / √3."""
    mean, half = statistics.compute_intervals(
        np.array([[0.8, 0.9, 1.0], [0.8, NAN, 1.0], [0.5, NAN, NAN]])
    )
    assert mean == pytest.approx([0.9, 0.9, 0.5])
    assert half[:2] == pytest.approx([4.302653 * 0.1 / 3**0.5, 12.706205 * 0.1], rel=1e-6)
    assert np.isnan(half[2])


def test_an_arm_without_seeds_has_no_mean():
    mean, half = statistics.compute_intervals(np.full((1, 3), NAN))
    assert np.isnan(mean).all() and np.isnan(half).all()


@given(arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6)))
def test_intervals_are_those_of_a_run(values):
    """`mmjax run` prints the same intervals."""
    mean, half = statistics.compute_intervals(values)
    for i in range(2):
        assert (mean[i], half[i]) == pytest.approx(
            compute_mean_interval(values[i]), rel=1e-9, abs=1e-6
        )


def closed_testing(p):
    """Adjusted p of the closed test whose local tests are Bonferroni's: Holm's, by definition."""
    k = len(p)
    subsets = [s for r in range(1, k + 1) for s in itertools.combinations(range(k), r)]
    return [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(k)]


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p):
    assert statistics.holm(np.array(p)) == pytest.approx(closed_testing(p), rel=1e-12)


def test_holm_counts_only_the_tests_that_there_are():
    assert statistics.holm(np.array([0.01, NAN, 0.04])) == pytest.approx(
        [0.02, NAN, 0.04], nan_ok=True
    )


def test_students_sleep_data():
    """Ten patients' extra sleep under two drugs: t = 4.0621, p = 0.002833 (Biometrika 1908)."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    found = statistics.compare_with_baseline(second[None], first)
    assert found.p[0] == pytest.approx(0.002833, abs=5e-7)
    assert found.difference[0] == pytest.approx(1.58)
    assert found.half[0] == pytest.approx((2.4598858 - 0.7001142) / 2, abs=1e-6)
    assert found.seeds[0] == 10
    assert statistics.paired_t_test(second - first, "greater") == pytest.approx(
        0.002833 / 2, abs=5e-7
    )


def test_only_common_seeds_are_compared():
    arms = np.array([[1.0, 2.0, 4.0, NAN], [NAN, NAN, 3.0, 9.0]])
    baseline = np.array([0.5, 1.0, 2.5, 7.0])
    found = statistics.compare_with_baseline(arms, baseline)
    assert found.seeds.tolist() == [3, 2]
    assert found.difference == pytest.approx([1.0, 1.25])
    alone = scipy_stats.ttest_rel(arms[0, :3], baseline[:3]).pvalue
    assert found.p[0] == pytest.approx(alone)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([0.0, 0.0, 0.0], 1.0), ([0.1, 0.1, 0.1], NAN), ([0.3], NAN), ([NAN, NAN, NAN], NAN)],
)
def test_where_nothing_tells_the_spread_there_is_no_test(differences, p):
    assert statistics.paired_t_test(np.array(differences)) == pytest.approx(p, nan_ok=True)


def test_round_off_is_no_spread():
    """0.3 - 0.2 and 0.4 - 0.3 are not the same float."""
    differences = np.array([0.3, 0.4, 0.5]) - np.array([0.2, 0.3, 0.4])
    assert np.ptp(differences) > 0
    assert np.isnan(statistics.paired_t_test(differences))


def test_the_best_are_the_one_on_top_and_those_it_does_not_beat():
    values = np.array([[9.0, 9.1, 9.2], [8.9, 9.2, 9.1], [1.0, 1.1, 1.3], [NAN, NAN, 99.0]])
    assert statistics.find_best_arms(values, maximize=True).tolist() == [True, True, False, False]
    assert statistics.find_best_arms(values, maximize=False).tolist() == [False, False, True, False]
    assert not statistics.find_best_arms(np.array([[1.0], [2.0]]), maximize=True).any()


def test_friedman_and_ranks_of_a_published_example():
    """Conover, Practical Nonparametric Statistics: 12 home owners rank 4 grasses; χ² = 8.0973."""
    ranks = np.array(
        [
            [4, 4, 3, 3, 4, 2, 1, 2, 3.5, 4, 4, 3.5],
            [3, 2, 1.5, 1, 2, 2, 3, 4, 1, 1, 2, 1],
            [2, 3, 1.5, 2, 1, 2, 2, 1, 2, 3, 3, 2],
            [1, 1, 4, 4, 3, 4, 4, 3, 3.5, 2, 1, 3.5],
        ]
    )
    found = rank_tests.compute_ranks(ranks, maximize=False)
    assert found.mean == pytest.approx([38 / 12, 23.5 / 12, 24.5 / 12, 34 / 12])
    assert found.p == pytest.approx(scipy_stats.chi2.sf(8.0973, 3), abs=1e-5)
    assert found.blocks == 12


def test_the_critical_difference_is_demsars():
    """JMLR 2006, section 3.2.4: 4 algorithms on 14 data sets, q = 2.569, CD = 1.25 at 5%."""
    values = np.random.default_rng(0).normal(size=(4, 14))
    assert rank_tests.compute_ranks(values, maximize=True).critical == pytest.approx(
        1.25, abs=0.005
    )


def test_demsars_table_of_studentized_ranges():
    """JMLR 2006, table 5a: q at 5% of 3 to 10 algorithms."""
    table = [2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for arms, q in enumerate(table, 3):
        values = np.random.default_rng(arms).normal(size=(arms, 2))
        scale = np.sqrt(arms * (arms + 1) / 12)
        assert rank_tests.compute_ranks(values, maximize=True).critical / scale == pytest.approx(
            q, abs=1e-3
        )


def test_ranks_leave_out_seeds_that_an_arm_lacks():
    values = np.array([[3.0, 1.0, NAN], [2.0, 2.0, 9.0], [1.0, 3.0, 8.0]])
    found = rank_tests.compute_ranks(values, maximize=True)
    assert found.mean == pytest.approx([2, 2, 2])
    assert found.blocks == 2


def test_equal_arms_have_equal_ranks_and_no_difference():
    found = rank_tests.compute_ranks(np.ones((3, 4)), maximize=True)
    assert found.mean == pytest.approx([2, 2, 2])
    assert found.p == 1


@pytest.mark.parametrize("shape", [(2, 5), (3, 1)])
def test_too_few_arms_or_seeds_are_not_ranked(shape):
    with pytest.raises(ValueError, match=r"at least 3 arms and 2 seeds"):
        rank_tests.compute_ranks(np.zeros(shape), maximize=True)


def slow_cliques(mean, critical):
    """All ranges within the critical difference that are in no other one."""
    n = sorted(mean)
    spans = [(a, b) for i, a in enumerate(n) for b in n[i + 1 :] if b - a <= critical]
    return sorted(
        {s for s in spans if not any(t != s and t[0] <= s[0] <= s[1] <= t[1] for t in spans)}
    )


@given(st.lists(st.integers(2, 20), min_size=2, max_size=8, unique=True), st.integers(0, 8))
def test_cliques_are_the_widest_ranges_within_the_critical_difference(mean, critical):
    found = rank_tests.find_cliques(np.array(mean, float) / 2, critical / 2)
    assert found == slow_cliques([m / 2 for m in mean], critical / 2)


def test_delta_m_is_the_mean_relative_gain_with_the_sign_of_the_direction():
    """One task from 0.8 to 0.88 (+10%), one error from 2.0 to 1.5 (+25%): 17.5%."""
    values = np.array([[[0.88]], [[1.5]]])
    single = np.array([[0.8], [2.0]])
    assert rank_tests.delta_m(values, single, [True, False]) == pytest.approx(np.array([[17.5]]))
    assert rank_tests.delta_m(values, single, [True, True]) == pytest.approx(np.array([[-7.5]]))


def test_delta_m_over_seeds_means_to_the_gain_of_the_means():
    rng = np.random.default_rng(0)
    values, single = rng.uniform(1, 2, (3, 4, 5)), rng.uniform(1, 2, (3, 5))
    signs = np.array([1, -1, 1])[:, None]
    means = single.mean(axis=1)[:, None]
    truth = 100 * (signs * (values.mean(axis=2) - means) / means).mean(axis=0)
    found = rank_tests.delta_m(values, single, [True, False, True])
    assert found.mean(axis=1) == pytest.approx(truth)


def test_delta_m_is_refused_against_a_baseline_that_is_not_positive():
    with pytest.raises(ValueError, match=r"Δm needs positive ones"):
        rank_tests.delta_m(np.ones((1, 2, 3)), np.array([[-0.1, 0.0, 0.1]]), [True])


# Error rates, by simulation under the null: all arms are alike.


def noise(kind, shape, seed=0):
    """Seeds' values around 0: normal, skewed, or accuracies near 0.97 of 1000 examples."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "skewed":
        return rng.lognormal(0, 0.5, shape) - np.exp(0.125)
    logits = np.log(0.97 / 0.03) + 0.5 * rng.normal(size=shape)
    return rng.binomial(1000, 1 / (1 + np.exp(-logits))) / 1000 - 0.9664463


@pytest.mark.parametrize("kind", ["normal", "skewed", "accuracy"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_one_arm_like_the_baseline_is_called_different_in_5_percent(kind, seeds):
    """40,000 studies of two identical arms; Monte Carlo error 0.1%.

    Half of the false claims call the arm better and half worse.
    """
    values = noise(kind, (40_000, 2, seeds))
    differences = values[:, 0] - values[:, 1]
    claimed = statistics.paired_t_test(differences) <= statistics.SIGNIFICANCE_LEVEL
    better = claimed & (differences.mean(axis=1) > 0)
    bounds = (0.04, 0.06) if kind == "normal" else (0.03, 0.06)  # coarse or skewed: cautious
    assert bounds[0] < claimed.mean() < bounds[1]
    assert better.mean() == pytest.approx(claimed.mean() / 2, abs=0.004)


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(3, 5), (15, 5)])
def test_any_of_several_arms_is_called_different_in_5_percent_at_most(arms, seeds):
    """2,000 studies of arms like their baseline, through `compare`; Monte Carlo error 0.5%."""
    studies = noise("normal", (2_000, arms + 1, seeds))
    found = [statistics.compare_with_baseline(study[1:], study[0]) for study in studies]
    claimed = np.mean([(one.holm <= statistics.SIGNIFICANCE_LEVEL).any() for one in found])
    uncorrected = np.mean([(one.p <= statistics.SIGNIFICANCE_LEVEL).any() for one in found])
    assert claimed < 0.06
    assert uncorrected > 0.1  # what the correction is for


def test_folds_are_tested_by_the_corrected_resampled_t_test():
    """By hand: t = mean / √((1/k + n_test/n_train) s²), with k - 1 degrees of freedom."""
    differences = np.array([0.03, 0.01, 0.02, -0.01, 0.04])
    k, overlap = 5, 20 / 60
    error = np.sqrt((1 / k + overlap) * np.var(differences, ddof=1))
    p = 2 * scipy_stats.t.sf(differences.mean() / error, k - 1)
    arms = np.stack([differences, np.r_[differences[:3], NAN, NAN]])
    found = statistics.compare_with_baseline(arms, np.zeros(5), overlap)
    assert found.p[0] == pytest.approx(p)
    assert found.half[0] == pytest.approx(2.776445 * error, rel=1e-6)
    three = arms[1, :3]
    error = np.sqrt((1 / 3 + overlap) * np.var(three, ddof=1))
    assert found.p[1] == pytest.approx(2 * scipy_stats.t.sf(three.mean() / error, 2))
    one_sided = statistics.paired_t_test(differences, "greater", overlap)
    assert one_sided == pytest.approx(p / 2)


def cross_validate(studies, examples, folds, seeds):
    """Simulates test errors [studies arms folds seeds] of two arms that are equally good.

    An arm regresses y on a feature of its own, of the same distribution, from 80% of the training
    examples, which the seed draws.
    """
    rng = np.random.default_rng(0)
    y = rng.normal(size=(studies, 1, examples))
    x = 0.5 * y + rng.normal(size=(studies, 2, examples))
    fold = np.arange(examples) % folds
    errors = np.zeros((studies, 2, folds, seeds))
    for f in range(folds):
        test, train = fold == f, (fold != f) & (fold != (f + 1) % folds)
        size = int(train.sum())
        for s in range(seeds):
            used = np.tile(np.arange(size) < 0.8 * size, (studies, 2, 1))
            weighted = rng.permuted(used, axis=-1) * x[..., train]
            slope = (weighted * y[..., train]).sum(-1) / (weighted * x[..., train]).sum(-1)
            residuals = y[..., test] - slope[..., None] * x[..., test]
            errors[:, :, f, s] = np.square(residuals).mean(-1)
    return errors


def test_equal_arms_on_folds_are_called_different_in_5_percent_at_most():
    """1,000 studies; the module's table says 1.3%, and 33% if folds and seeds were independent."""
    errors = cross_validate(1_000, examples=100, folds=5, seeds=3)
    differences = errors[:, 0] - errors[:, 1]
    corrected = statistics.paired_t_test(differences.mean(-1), overlap=20 / 60)
    naive = statistics.paired_t_test(differences.reshape(len(errors), -1))
    assert (corrected <= statistics.SIGNIFICANCE_LEVEL).mean() < 0.05
    assert (naive <= statistics.SIGNIFICANCE_LEVEL).mean() > 0.2


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
def test_intervals_of_normal_values_cover_at_95_percent(seeds):
    """40,000 samples; Monte Carlo error 0.1%."""
    mean, half = statistics.compute_intervals(noise("normal", (40_000, seeds)))
    assert (np.abs(mean) <= half).mean() == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("kind", ["skewed", "accuracy"])
def test_intervals_of_skewed_values_cover_a_little_less(kind):
    """40,000 samples; the module's table says 91 to 93%."""
    for seeds in (3, 5, 10, 20):
        mean, half = statistics.compute_intervals(noise(kind, (40_000, seeds)))
        assert 0.905 < (np.abs(mean) <= half).mean() < 0.955


def test_the_percentile_bootstrap_covers_far_less_with_few_seeds():
    """Why it is not used: SciPy's, 1,000 samples of five normal values; about 83%."""
    samples = noise("normal", (1_000, 5))
    found = scipy_stats.bootstrap(
        (samples,), np.mean, axis=1, method="percentile", n_resamples=999, batch=50, rng=0
    ).confidence_interval
    assert ((found.low <= 0) & (found.high >= 0)).mean() < 0.87


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "tied"), [(4, 4), (4, 2), (16, 16), (16, 3)])
def test_the_best_set_holds_each_of_the_best_in_95_percent(arms, tied):
    """1,500 studies in which some arms are equally good and the rest are far behind.

    The spreads of the arms differ; Monte Carlo error of one arm 0.6%.
    """
    studies = noise("normal", (1_500, arms, 5)) * np.linspace(0.3, 2, arms)[:, None]
    studies[:, tied:] -= 10_000
    kept = np.array([statistics.find_best_arms(study, maximize=True) for study in studies])
    assert kept[:, :tied].mean(axis=0).min() > 0.93
    assert not kept[:, tied:].any()


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(4, 5), (16, 5), (16, 10)])
def test_ranks_of_equal_arms_differ_in_5_percent_at_most(arms, seeds):
    """3,000 studies; Monte Carlo error 0.4%."""
    found = [
        rank_tests.compute_ranks(study, maximize=True)
        for study in noise("normal", (3_000, arms, seeds))
    ]
    assert np.mean([one.p <= statistics.SIGNIFICANCE_LEVEL for one in found]) < 0.06
    assert np.mean([np.ptp(one.mean) > one.critical for one in found]) < 0.06
