"""Each loss against a slow float64 version of its formula: its value, and its slope by differences.

Rows that are not present hold NaN.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import auxiliary
from mmjax.auxiliary import (
    cca,
    coral_distance,
    cosine_distance,
    gaussian_kl,
    info_nce,
    mmd,
    mmd_to_normal,
    negative_log_likelihood,
    prediction_distance,
)
from mmjax.auxiliary.correlation import nuclear_norm
from tests.auxiliary import test_evidence, test_missing_objectives

N = 9
RNG = np.random.default_rng(0)
A = RNG.normal(size=(N, 3))
B = 0.7 * A[:, [1, 0, 2]] + RNG.normal(size=(N, 3)) + 0.4
WIDE = np.concatenate([B, RNG.normal(size=(N, 1))], axis=1)
HERE_A = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], bool)
HERE_B = np.array([1, 0, 1, 1, 1, 1, 0, 1, 1], bool)


def info_nce_slow(a, b, here_a, here_b, temperature):
    def cos(x, y):
        return sum(x * y) / math.sqrt(sum(x * x) * sum(y * y))

    both = [i for i in range(len(a)) if here_a[i] and here_b[i]]
    total = 0.0
    for i in both:
        for x, y in ((a, b), (b, a)):
            of_all = [math.exp(cos(x[i], y[j]) / temperature) for j in both]
            total += -0.5 * math.log(math.exp(cos(x[i], y[i]) / temperature) / sum(of_all))
    return total


def cca_slow(a, b, here_a, here_b, ridge):
    both = here_a & here_b
    a, b = a[both] - a[both].mean(0), b[both] - b[both].mean(0)

    def inverse_root(c):
        values, vectors = np.linalg.eigh(c + ridge * np.trace(c) / len(c) * np.eye(len(c)))
        return vectors @ np.diag(values**-0.5) @ vectors.T

    free = both.sum() - 1
    t = inverse_root(a.T @ a / free) @ (a.T @ b / free) @ inverse_root(b.T @ b / free)
    return min(a.shape[1], b.shape[1]) - np.linalg.svd(t, compute_uv=False).sum()


def coral_slow(a, b, here_a, here_b):
    difference = np.cov(a[here_a].T) - np.cov(b[here_b].T)
    return sum(x**2 for x in difference.ravel()) / (4 * a.shape[1] ** 2)


def mmd_slow(a, b, here_a, here_b, widths=None, unbiased=False, fixed=None):
    a, b = list(a[here_a]), list(b[here_b])
    if widths is None:
        widths = [fixed]

    def k(x, y):
        return np.mean([math.exp(-sum((x - y) ** 2) / (2 * s**2)) for s in widths])

    def mean(x, y, same):
        indices = itertools.product(range(len(x)), range(len(y)))
        return np.mean([k(x[i], y[j]) for i, j in indices if not (same and unbiased and i == j)])

    return mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)


def median_distance(a, b, here_a, here_b):
    rows = [*a[here_a], *b[here_b]]
    return np.median([math.dist(x, y) for x, y in itertools.combinations(rows, 2)])


def kl_slow(mean, variance):
    return sum(
        0.5 * (m * m + v - math.log(v) - 1)
        for m, v in zip(mean.ravel(), variance.ravel(), strict=True)
    )


def cosine_slow(a, b):
    return sum(
        1 - sum(x * y) / math.sqrt(sum(x * x) * sum(y * y)) for x, y in zip(a, b, strict=True)
    )


def softmax_slow(x, t):
    e = [math.exp(v / t) for v in x]
    return [v / sum(e) for v in e]


def exclusive_slow(a, b, t):
    total = 0.0
    for student, teacher in zip(a, b, strict=True):
        q, p = softmax_slow(student, t), softmax_slow(teacher, t)
        total += t * t * sum(y * math.log(y / x) for x, y in zip(q, p, strict=True))
    return total


def separate_slow(a, b, t):
    total = 0.0
    for student, teacher in zip(a.ravel(), b.ravel(), strict=True):
        q, p = (1 / (1 + math.exp(-v / t)) for v in (student, teacher))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return t * t * total / a.shape[1]


MASKS = (jnp.asarray(HERE_A), jnp.asarray(HERE_B))
SPREAD = median_distance(A, B, HERE_A, HERE_B)
CASES = {
    "info_nce": (
        lambda a, b: info_nce(a, b, *MASKS, temperature=0.5)[0],
        lambda a, b: info_nce_slow(a, b, HERE_A, HERE_B, 0.5),
        (A, B),
    ),
    "cca": (
        lambda a, b: cca(a, b, *MASKS, ridge=0.05),
        lambda a, b: cca_slow(a, b, HERE_A, HERE_B, 0.05),
        (A, WIDE),
    ),
    "coral": (
        lambda a, b: coral_distance(a, b, *MASKS),
        lambda a, b: coral_slow(a, b, HERE_A, HERE_B),
        (A, B),
    ),
    "mmd": (
        lambda a, b: mmd(a, b, *MASKS, bandwidths=(0.8, 2.0)),
        lambda a, b: mmd_slow(a, b, HERE_A, HERE_B, (0.8, 2.0)),
        (A, B),
    ),
    "mmd unbiased": (
        lambda a, b: mmd(a, b, *MASKS, bandwidths=(1.3,), unbiased=True),
        lambda a, b: mmd_slow(a, b, HERE_A, HERE_B, (1.3,), unbiased=True),
        (A, B),
    ),
    "mmd with the median, which is a constant": (
        lambda a, b: mmd(a, b, *MASKS),
        lambda a, b: mmd_slow(a, b, HERE_A, HERE_B, fixed=SPREAD),
        (A, B),
    ),
    "kl": (
        lambda m, v: gaussian_kl(m, v).sum(),
        kl_slow,
        (A[HERE_A], B[HERE_A] ** 2 + 0.1),
    ),
    "cosine": (lambda a, b: cosine_distance(a, b).sum(), cosine_slow, (A[HERE_A], B[HERE_A])),
    "exclusive predictions": (
        lambda a, b: prediction_distance(a, b, 3.0).sum(),
        lambda a, b: exclusive_slow(a, b, 3.0),
        (A[HERE_A], B[HERE_A]),
    ),
    "separate predictions": (
        lambda a, b: prediction_distance(a, b, 3.0, exclusive=False).sum(),
        lambda a, b: separate_slow(a, b, 3.0),
        (A[HERE_A], B[HERE_A]),
    ),
}


def differences(function, arrays, h=1e-5):
    """Central differences of a float64 function by every entry."""
    slopes = []
    for array in arrays:
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + h
            above = function(*arrays)
            array[place] = kept - h
            slope[place] = (above - function(*arrays)) / (2 * h)
            array[place] = kept
        slopes.append(slope)
    return slopes


@pytest.mark.parametrize("name", CASES)
def test_value_and_slope_are_those_of_the_formula(name):
    fast, slow, arrays = CASES[name]
    arrays = [np.array(x) for x in arrays]
    if len(arrays[0]) == N:
        spoilt = [
            np.where(here[:, None], x, np.nan)
            for x, here in zip(arrays, (HERE_A, HERE_B), strict=True)
        ]
    else:
        spoilt = arrays
    inputs = [jnp.asarray(x, jnp.float32) for x in spoilt]
    value, slopes = jax.jit(jax.value_and_grad(fast, argnums=(0, 1)))(*inputs)
    np.testing.assert_allclose(value, slow(*arrays), rtol=1e-5, atol=1e-5)
    for found, expected in zip(slopes, differences(slow, arrays), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_info_nce_counts_the_examples_that_have_both():
    a, b = jnp.asarray(A, jnp.float32), jnp.asarray(B, jnp.float32)
    assert info_nce(a, b, *MASKS)[1] == (HERE_A & HERE_B).sum() == 6
    none = jnp.zeros(N, bool)
    assert info_nce(a, b, MASKS[0], none) == (0, 0)
    one = none.at[3].set(True)
    assert info_nce(a, b, one, one) == (0, 1)


def test_info_nce_of_equal_vectors_is_the_logarithm_of_their_number():
    a = jnp.ones((7, 4))
    total, count = info_nce(a, a, jnp.ones(7, bool), jnp.ones(7, bool), temperature=0.1)
    np.testing.assert_allclose(total / count, math.log(7), rtol=1e-5)


@pytest.mark.slow
def test_info_nce_is_the_same_on_two_devices():
    """The queries of each half among the keys of both."""
    a, b = jnp.asarray(A[:8], jnp.float32), jnp.asarray(B[:8], jnp.float32)
    here = [m[:8] for m in MASKS]

    def loss(gather, *parts):
        return info_nce(*parts, temperature=0.3, gather=gather)

    def halves(a, b, *here):
        gather = functools.partial(jax.lax.all_gather, axis_name="i", tiled=True)
        each = jax.pmap(functools.partial(loss, gather), axis_name="i")
        total, count = each(*(x.reshape(2, 4, *x.shape[1:]) for x in (a, b, *here)))
        return total.sum(), count.sum()

    def whole(a, b, *here):
        return loss(lambda x: x, a, b, *here)

    np.testing.assert_allclose(halves(a, b, *here), whole(a, b, *here), rtol=1e-5)
    slopes = [jax.grad(f, argnums=(0, 1), has_aux=True)(a, b, *here)[0] for f in (halves, whole)]
    for found, expected in zip(*slopes, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cca_of_views_of_one_latent_has_the_known_correlations():
    """x = s + noise of variance r1, y = s + noise of variance r2: ρ = 1 / √((1 + r1)(1 + r2))."""
    rng, n = np.random.default_rng(1), 20000
    noise = np.array([[0.1, 1.0], [0.5, 3.0]])
    s = rng.normal(size=(n, 2))
    x, y = (s + np.sqrt(r)[None] * rng.normal(size=(n, 2)) for r in noise)
    mixed = (x @ rng.normal(size=(2, 2)), y @ rng.normal(size=(2, 2)))
    here = jnp.ones(n, bool)
    loss = cca(*(jnp.asarray(v, jnp.float32) for v in mixed), here, here, ridge=1e-6)
    expected = 2 - (1 / np.sqrt((1 + noise[0]) * (1 + noise[1]))).sum()
    np.testing.assert_allclose(loss, expected, atol=0.02)


def test_cca_does_not_depend_on_the_scale():
    here = jnp.ones(N, bool)
    losses = [
        cca(jnp.asarray(scale * A, jnp.float32), jnp.asarray(B, jnp.float32), here, here)
        for scale in (1.0, 1e-4, 1e4)
    ]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


@pytest.mark.parametrize("a", [np.zeros((N, 3)), np.ones((N, 3)), A], ids=["0", "1", "itself"])
def test_cca_has_a_slope_where_correlations_are_equal_or_nothing_varies(a):
    a, here = jnp.asarray(a, jnp.float32), jnp.ones(N, bool)
    loss, slope = jax.value_and_grad(cca)(a, a, here, here)
    assert 0 <= loss <= 3 and np.isfinite(slope).all()


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
def test_the_slope_of_the_nuclear_norm(shape):
    """U Vᵀ, also of equal singular values, and 0 for a matrix of zeros."""
    left, _, right = np.linalg.svd(np.random.default_rng(0).normal(size=shape), False)
    k = min(shape)
    for s in (np.ones(k), np.arange(1, k + 1)):
        x = jnp.asarray((left * s[None]) @ right, jnp.float32)
        value, slope = jax.value_and_grad(nuclear_norm)(x)
        np.testing.assert_allclose(value, s.sum(), rtol=1e-5)
        np.testing.assert_allclose(slope, left @ right, atol=1e-5)
    value, slope = jax.value_and_grad(nuclear_norm)(jnp.zeros(shape))
    assert value == 0 and (slope == 0).all()


def test_mmd_to_normal_is_mmd_to_many_draws():
    rng = np.random.default_rng(0)
    x, draws = rng.normal(0.5, 1.3, size=(40, 2)), rng.normal(size=(3000, 2))
    here = rng.random(40) < 0.7
    value = mmd_to_normal(
        jnp.asarray(np.where(here[:, None], x, np.nan), jnp.float32), jnp.asarray(here)
    )
    x, s = x[here], 4.0

    def mean(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * s)).mean()

    expected = mean(x, x) + mean(draws, draws) - 2 * mean(x, draws)
    np.testing.assert_allclose(value, expected, atol=0.01)
    assert value > 0.05


def test_the_slope_of_mmd_to_normal():
    x = np.random.default_rng(0).normal(size=(5, 2))

    def slow(x):
        s = 4.0
        kernel = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * s)).mean()
        to_normal = s / (1 + s) * np.exp(-(x**2).sum(1) / (2 * (1 + s))).mean()
        return kernel + s / (2 + s) - 2 * to_normal

    value, slope = jax.value_and_grad(mmd_to_normal)(jnp.asarray(x, jnp.float32), jnp.ones(5, bool))
    np.testing.assert_allclose(value, slow(x), atol=1e-5)
    np.testing.assert_allclose(slope, differences(slow, [x])[0], atol=1e-5)


def test_mmd_of_the_same_sets_is_zero_and_has_no_bad_slope():
    a, here = jnp.asarray(A, jnp.float32), jnp.ones(N, bool)
    value, slope = jax.value_and_grad(mmd)(a, a, here, here)
    assert abs(value) < 1e-6 and np.abs(slope).max() < 1e-5
    same = jnp.ones((N, 3))
    value, slope = jax.value_and_grad(mmd)(same, same, here, here)
    assert value == 0 and np.isfinite(slope).all()


def test_likelihoods_by_hand():
    p, x = np.array([0.3, -2.0, 5.0]), np.array([0.0, 0.25, 1.0])
    q = 1 / (1 + np.exp(-p))
    expected = {
        "gaussian": (p - x) ** 2 / 2,
        "bernoulli": -x * np.log(q) - (1 - x) * np.log(1 - q),
    }
    inputs = jnp.asarray(p, jnp.float32), jnp.asarray(x, jnp.float32)
    for likelihood, value in expected.items():
        found = negative_log_likelihood(*inputs, likelihood)
        np.testing.assert_allclose(found, value, atol=1e-6)
    logits, index = np.array([[0.1, 2.0, -1.0], [0.0, 0.0, 3.0]]), np.array([1, 0])
    found = negative_log_likelihood(
        jnp.asarray(logits, jnp.float32), jnp.asarray(index), "categorical"
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, -np.log(p[[0, 1], index]), rtol=1e-5)


def test_every_public_formula_is_tested_here():
    """By what this file and two others import: an import that no test uses fails the linter."""
    imported = globals() | vars(test_evidence) | vars(test_missing_objectives)
    for name in auxiliary.__all__:
        if not isinstance(getattr(auxiliary, name), type):
            assert imported.get(name) is getattr(auxiliary, name), name
