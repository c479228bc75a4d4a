"""The guarantee of each paper, on gradients that oppose, repeat or depend on each other.

The guarantees are checked in float64 on the gradient that a method returns, not on its weights; a
new method adds a line to `TABLE`. Rounding errors of float32 are measured in units of the lengths
that are summed, `gross` = sum_i |w_i| |g_i|; `ROUND` times that is allowed. The weights have bounds
too, so that a large `gross` cannot excuse a wrong gradient.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import balance
from mmjax.balance import Balancer
from mmjax.balance.pullback import pullback_from_jacobian

TASKS, SIZE, STEPS = 8, 16, 2
NAMES = tuple("abcdefgh")
ROUND = 1e-5
EPS = float(np.finfo(np.float32).eps)


def ordinary(rng, t):
    return rng.normal(size=(t, SIZE))


def turned(rng, t, angle, sign):
    """Turns one gradient by `angle` from another one, or from its opposite."""
    rows = ordinary(rng, t)
    i, j = rng.choice(t, 2, replace=False)
    along = rows[i] / np.linalg.norm(rows[i])
    across = rng.normal(size=SIZE)
    across -= across @ along * along
    across /= np.linalg.norm(across)
    direction = np.cos(angle) * along + np.sin(angle) * across
    rows[j] = sign * rng.choice([0.5, 1, 1, 3]) * np.linalg.norm(rows[i]) * direction
    return rows


def opposed(rng, t):
    return turned(rng, t, 0.0, -1)


def nearly_opposed(rng, t):
    return turned(rng, t, 10 ** -rng.uniform(2, 7), -1)


def nearly_parallel(rng, t):
    return turned(rng, t, 10 ** -rng.uniform(2, 7), 1)


def duplicated(rng, t):
    return ordinary(rng, t)[rng.integers(0, max(t - 1, 1), t)] * rng.choice([1, 1, 2], (t, 1))


def rank_deficient(rng, t):
    rank = rng.integers(1, t)
    return rng.normal(size=(t, rank)) @ rng.normal(size=(rank, SIZE))


def nearly_rank_deficient(rng, t):
    return rank_deficient(rng, t) + 10 ** -rng.uniform(2, 7) * ordinary(rng, t)


def fewer_parameters(rng, t):
    return ordinary(rng, t) * (np.arange(SIZE) < rng.integers(1, t))


def mean_near_zero(rng, t):
    rows = ordinary(rng, t)
    rows[-1] = 10 ** -rng.uniform(1, 8) * rows[-1] - rows[:-1].sum(0)
    return rows


def one_zero(rng, t):
    return fewer_parameters(rng, t) * (np.arange(t) != rng.integers(t))[:, None]


def mixed(family):
    """Scales each gradient of the family by a factor between 1e-6 and 1e6."""
    return lambda rng, t: family(rng, t) * 10 ** rng.uniform(-6, 6, (t, 1))


FAMILIES = {
    "ordinary": ordinary,
    "opposed": opposed,
    "nearly opposed": nearly_opposed,
    "nearly parallel": nearly_parallel,
    "duplicated": duplicated,
    "rank-deficient": rank_deficient,
    "nearly rank-deficient": nearly_rank_deficient,
    "fewer parameters": fewer_parameters,
    "mean near zero": mean_near_zero,
    "one zero": one_zero,
    "mixed scale": mixed(ordinary),
    "mixed scale, opposed": mixed(opposed),
    "mixed scale, fewer parameters": mixed(fewer_parameters),
}


@functools.cache
def draw_cases(draws, seed):
    """(rows, losses, labeled) of all families; 2, 3, 4 or 8 tasks in as many slots as the most."""
    cases = []
    for family, make in FAMILIES.items():
        rng = np.random.default_rng([seed, *family.encode()])
        for k in range(draws):
            t = (2, 3, 4, 8)[k % 4]
            rows, losses = np.zeros((TASKS, SIZE)), np.zeros(TASKS)
            rows[:t] = make(rng, t) * 10 ** rng.uniform(-3, 3)
            losses[:t] = 10 ** rng.uniform(-2, 2, t)
            cases.append((rows.astype(np.float32), losses.astype(np.float32), np.arange(TASKS) < t))
    return [np.stack(x) for x in zip(*cases, strict=True)]


class Result(NamedTuple):
    """One step: the gradients [t p] and losses of the tasks, the update d and its weights."""

    rows: np.ndarray
    losses: np.ndarray
    d: np.ndarray
    w: np.ndarray

    @property
    def norms(self):
        return np.linalg.norm(self.rows, axis=1)

    @property
    def gross(self):
        return np.abs(self.w) @ self.norms + 1e-30

    @property
    def mean(self):
        return self.rows.mean(0)


def weighted(r):
    """The update is the sum of the gradients with the weights that are logged."""
    return np.linalg.norm(r.w @ r.rows - r.d) / (ROUND * r.gross)


def simplex(total=lambda t: 1.0, least=lambda t: 0.0):
    """The weights are at least `least`, and their sum is `total`."""

    def share_a_total(r):
        t = len(r.w)
        short = (least(t) - r.w).max() / (ROUND * (total(t) + least(t)))
        return max(short, abs(r.w.sum() - total(t)) / (10 * ROUND * total(t)))

    return share_a_total


def at_least_the_mean(r):
    """No gradient has less than its part in the mean."""
    return ((1 / len(r.w) - r.w) * len(r.w)).max() / ROUND


def no_conflict(r):
    """The update is opposed to no gradient."""
    norms = np.where(r.norms > 0, r.norms, 1)
    return (-(r.rows @ r.d) / norms).max() / (ROUND * r.gross)


def little_conflict(r):
    """The update is opposed to no gradient beyond the precision of lengths in a float32 Gramian."""
    return no_conflict(r) * ROUND / (2 * (32 * EPS) ** 0.5)


def no_conflict_of_two(r):
    return no_conflict(r) if len(r.rows) == 2 else 0.0


def no_longer_than(bound):
    """The update is no longer than `bound(r)`, up to the precision of a float32 Gramian.

    It may be longer by a hundredth, since the quadratic programs of `upgrad` are less exact if
    gradients depend on each other.
    """

    def length(r):
        known = (32 * EPS) ** 0.5 * r.gross
        return np.linalg.norm(r.d) / (np.hypot(bound(r), known) * (1 + 1e-2) + 1e-30)

    return length


def weights_within(bound):
    """No weight is beyond `bound(r)`."""

    def weight(r):
        return (np.abs(r.w) / (bound(r) * (1 + 1e-3) + 1e-30)).max()

    return weight


def in_the_ball(c):
    """|d - g_0| <= c |g_0|, within a thousandth, or the rounding errors of a mean in float32."""

    def distance(r):
        allowed = c * np.linalg.norm(r.mean) * (1 + 1e-3) + 4 * EPS * r.norms.mean()
        return np.linalg.norm(r.d - r.mean) / allowed

    return distance


def serves_the_worst(r):
    """The worst gain is at least that of the mean gradient."""
    inner, before = (r.rows @ x for x in (r.d, r.mean))
    real = r.norms > 0
    if not real.any():
        return 0.0
    loss = before[real].min() - inner[real].min()
    return loss / (ROUND * r.norms.max() * (r.gross + r.norms.mean()))


def least_norm(r):
    """|d|^2 <= d . g_i for every gradient: d is the least point of the hull."""
    return (r.d @ r.d - (r.rows @ r.d).min()) / (ROUND * r.gross * r.norms.max() + 1e-30)


def projects_the_mean(r):
    """d is at right angles to what the projection took away."""
    return abs(r.d @ (r.mean - r.d)) / (ROUND * r.gross * (r.gross + np.linalg.norm(r.mean)))


def bargains(alpha):
    """0 <= (g_i . d) w_i^(1 / alpha) <= 1, with 1 where there is a bargain."""

    def gain(r):
        rounding = 4 * ROUND * r.norms * r.gross
        inner, power = r.rows @ r.d, r.w ** (1 / alpha)
        return max(
            (-inner / (rounding + 1e-30)).max(), (inner * power / (1.01 + rounding * power)).max()
        )

    return gain


def where_independent(guarantee):
    """The guarantee where the unit gradients' least singular value is over 0.01."""

    @functools.wraps(guarantee)
    def judged(r):
        units = r.rows[r.norms > 0] * inverse(r.norms)[r.norms > 0, None]
        independent = len(units) <= SIZE and np.linalg.svd(units)[1].min(initial=1) > 0.01
        return guarantee(r) if independent else 0.0

    return judged


def where_norms_within(factor, guarantee):
    """The guarantee where no norm is more than the factor of another."""

    @functools.wraps(guarantee)
    def judged(r):
        norms = r.norms[r.norms > 0]
        return guarantee(r) if norms.max(initial=0) <= factor * norms.min(initial=np.inf) else 0.0

    return judged


def equal_projections(r):
    """The update has the same projection on every unit gradient."""
    real = r.norms > 0
    projections = r.rows[real] @ r.d / r.norms[real]
    return np.ptp(projections) / (10 * ROUND * r.gross) if real.any() else 0.0


def sums_to_one_or_nothing(r):
    return min(abs(r.w.sum() - 1), np.abs(r.w).sum()) / (10 * ROUND * np.abs(r.w).sum() + 1e-30)


def mean_descends(r):
    """The mean of the losses does not rise."""
    return -(r.mean @ r.d) / (ROUND * r.gross * r.norms.max() + 1e-30)


def selects(r):
    """The selected gradients have the same weight, and the least sums of squared distances."""
    t = len(r.w)
    squares = ((r.rows[:, None] - r.rows[None]) ** 2).sum(2)
    near = max(t - max((t - 3) // 2, 0) - 2, 1)
    scores = np.sort(squares, axis=1)[:, 1 : 1 + near].sum(1)
    chosen = r.w > 0
    noise = ROUND * (near * r.norms**2 + scores)
    late = (scores[chosen] - noise[chosen]).max() - (scores + noise).min()
    return max(0.0 if late <= 0 else 2.0, np.ptp(r.w[chosen]) / ROUND)


def between_the_trimmed(r):
    """Every entry lies between the second least and the second largest, of three or more."""
    ordered = np.sort(r.rows, axis=0)
    low, high = (ordered[1], ordered[-2]) if len(r.rows) > 2 else (ordered[0], ordered[-1])
    outside = np.maximum(low - r.d, r.d - high).max()
    return outside / (ROUND * np.abs(r.rows).max() + 1e-30)


def of_one_sign(r):
    """Every entry is the sum of the positive or of the negative ones."""
    up, down = np.maximum(r.rows, 0).sum(0), np.minimum(r.rows, 0).sum(0)
    off = np.minimum(np.abs(r.d - up), np.abs(r.d - down))
    return (off / (ROUND * np.abs(r.rows).sum(0) + 1e-30)).max()


def longest(r):
    return r.norms.max()


def all_lengths(r):
    return r.norms.sum()


def shortest_principal(r):
    """The length of the mean of T orthogonal gradients as long as the least singular value."""
    real = r.rows[r.norms > 0]
    return np.linalg.svd(real)[1].min(initial=np.inf) / len(r.rows) ** 0.5


def mean_length(r):
    return r.norms.mean()


def inverse(norms):
    return 1 / np.where(norms > 0, norms, 1)


def cagrad_weights_within(c):
    """See the docstring of `cagrad`."""
    return weights_within(
        lambda r: 1 / len(r.w) + 550 * c * (np.linalg.norm(r.mean) + EPS) * inverse(r.norms)
    )


class Line(NamedTuple):
    """A method and what it guarantees: functions of a `Result` that are at most 1."""

    make: Callable[[], Balancer]
    guarantees: tuple[Callable[[Result], float], ...]


def by_losses(make, bound):
    """Makes the line of a weighting by losses, whose weights do not depend on the gradients."""
    return Line(make, (weighted, weights_within(bound)))


TABLE = {
    "aligned": Line(
        balance.aligned,
        (
            weighted,
            mean_descends,
            no_longer_than(lambda r: np.linalg.norm(r.rows, 2) / len(r.rows) ** 0.5),
            where_independent(where_norms_within(1e4, no_longer_than(shortest_principal))),
        ),
    ),
    "cagrad": Line(
        balance.cagrad, (weighted, in_the_ball(0.5), serves_the_worst, cagrad_weights_within(0.5))
    ),
    "cagrad, c = 1": Line(
        lambda: balance.cagrad(c=1.0),
        (weighted, in_the_ball(1.0), serves_the_worst, little_conflict, cagrad_weights_within(1.0)),
    ),
    "cagrad, c = 1.5": Line(
        lambda: balance.cagrad(c=1.5),
        (weighted, in_the_ball(1.5), serves_the_worst, little_conflict, cagrad_weights_within(1.5)),
    ),
    "conflict_free": Line(
        balance.conflict_free,
        (
            weighted,
            where_independent(no_conflict),
            no_longer_than(all_lengths),
            weights_within(lambda r: r.norms.sum() / EPS * inverse(r.norms)),
        ),
    ),
    "cosmos": by_losses(balance.cosmos, lambda r: 1 + 2 / np.linalg.norm(r.losses)),
    "db_mtl": Line(
        balance.db_mtl,
        (no_longer_than(lambda r: len(r.w) * (r.norms / r.losses).max()),),
    ),
    "dualproj": Line(
        balance.dualproj,
        (
            weighted,
            no_conflict,
            at_least_the_mean,
            projects_the_mean,
            no_longer_than(lambda r: np.linalg.norm(r.mean)),
        ),
    ),
    "dwa": Line(lambda: balance.dwa(steps=1), (weighted, simplex(lambda t: t))),
    "equal": by_losses(balance.equal, lambda r: 1.0),
    "excess_mtl": Line(balance.excess_mtl, (weighted, simplex(), no_longer_than(longest))),
    "fairgrad": Line(
        balance.fairgrad,
        (
            weighted,
            bargains(2.0),
            weights_within(
                lambda r: (inverse(r.norms**0.5).sum() / EPS) ** (2 / 3) * inverse(r.norms)
            ),
        ),
    ),
    "famo": Line(balance.famo, (weighted, simplex())),
    "geometric": by_losses(
        balance.geometric, lambda r: np.exp(np.log(r.losses).mean()) / r.losses / len(r.losses)
    ),
    "graddrop": Line(balance.graddrop, (of_one_sign, weights_within(lambda r: 1.0))),
    "gradnorm": Line(balance.gradnorm, (weighted, simplex(lambda t: t))),
    "gradvac": Line(
        balance.gradvac,
        (
            weighted,
            no_longer_than(all_lengths),
            weights_within(lambda r: r.norms.sum() * inverse(r.norms)),
        ),
    ),
    "imtl_g": Line(
        balance.imtl_g,
        (
            weighted,
            sums_to_one_or_nothing,
            where_independent(equal_projections),
            weights_within(lambda r: 0.1 / EPS),
        ),
    ),
    "imtl_l": by_losses(balance.imtl_l, lambda r: 1.01),
    "krum": Line(balance.krum, (weighted, simplex(), selects, no_longer_than(longest))),
    "log_stch": by_losses(lambda: balance.log_stch(warmup=1), lambda r: len(r.losses) / r.losses),
    "mgda": Line(balance.mgda, (weighted, simplex(), no_conflict, least_norm)),
    "moco": Line(balance.moco, (simplex(), no_longer_than(longest))),
    "modo": Line(balance.modo, (weighted, simplex(), no_longer_than(longest))),
    "nash": Line(
        balance.nash,
        (
            weighted,
            bargains(1.0),
            no_longer_than(lambda r: len(r.w) ** 0.5),
            weights_within(lambda r: 2 * EPS**-0.5 * inverse(r.norms)),
        ),
    ),
    "pbi": by_losses(balance.pbi, lambda r: 6.0),
    "pcgrad": Line(
        balance.pcgrad,
        (
            weighted,
            no_conflict_of_two,
            no_longer_than(all_lengths),
            weights_within(lambda r: np.maximum(r.norms.sum() * inverse(r.norms), 1)),
        ),
    ),
    "rlw": Line(balance.rlw, (weighted, simplex(lambda t: t))),
    "scale_invariant": by_losses(balance.scale_invariant, lambda r: 1 / r.losses),
    "sdmgrad": Line(
        balance.sdmgrad,
        (
            weighted,
            simplex(lambda t: 1.3, lambda t: 0.3 / t),
            no_longer_than(lambda r: 1.3 * longest(r)),
        ),
    ),
    "static": by_losses(lambda: balance.static(dict.fromkeys(NAMES, 0.5)), lambda r: 0.5),
    "stch": Line(balance.stch, (weighted, simplex(lambda t: 1 / t))),
    "trimmed_mean": Line(
        balance.trimmed_mean, (between_the_trimmed, weights_within(lambda r: 1 / len(r.w)))
    ),
    "uncertainty": by_losses(balance.uncertainty, lambda r: 0.51),
    "upgrad": Line(
        balance.upgrad,
        (weighted, no_conflict, at_least_the_mean, no_longer_than(mean_length)),
    ),
}


BY_GRAMIAN = [
    *("aligned", "cagrad", "cagrad, c = 1", "conflict_free", "dualproj", "imtl_g", "krum"),
    *("mgda", "nash", "pcgrad", "upgrad"),
]
"""The methods that a Gramian's rounding can lead astray: those of the fast test."""
DRAWS = 200
RARE = {("fairgrad", "mixed scale, fewer parameters", "gain"): 0.02}
"""Shares of the cases in which a guarantee is known not to hold.

See the docstring of `fairgrad`: its Newton steps can stall.
"""


def run_steps(balancer, rows, losses, labeled, key):
    """STEPS updates with the same gradients: (updates, weights)."""
    jacobian = {"shared": rows, "head": jnp.diag(labeled.astype(jnp.float32))}
    pullback = pullback_from_jacobian(jacobian, {"shared": True, "head": False})
    if balancer.parts > 1:
        pullback = pullback._replace(parts=(pullback,) * balancer.parts)

    def step(state, key):
        gradient, w, state = balancer.update(losses, pullback, state, key=key, labeled=labeled)
        return state, (gradient["shared"], w)

    state = balancer.init(NAMES, {"shared": jnp.zeros(SIZE), "head": None})
    return jax.lax.scan(step, state, jax.random.split(key, STEPS))[1]


def find_violations(name, draws, seed=0):
    """{(family, guarantee): (number of violations, the worst ratio)} over `draws` each."""
    rows, losses, labeled = draw_cases(draws, seed)
    keys = jax.random.split(jax.random.key(seed), len(rows))
    line = TABLE[name]
    balancer = line.make()
    # One case after another: under `vmap` every loop would run as often as the longest one.
    program = jax.jit(lambda cases: jax.lax.map(lambda case: run_steps(balancer, *case), cases))
    updates, weights = (np.asarray(x, np.float64) for x in program((rows, losses, labeled, keys)))
    violations = {}
    for k, family in enumerate(np.repeat(list(FAMILIES), draws)):
        mask = labeled[k]
        for d, w in zip(updates[k], weights[k], strict=True):
            result = Result(
                rows[k][mask].astype(np.float64), losses[k][mask].astype(np.float64), d, w[mask]
            )
            with np.errstate(all="ignore"):
                ratios = {g.__name__: g(result) for g in line.guarantees}
            ratios["finite"] = 0.0 if np.isfinite(d).all() and np.isfinite(w).all() else np.inf
            for guarantee, ratio in ratios.items():
                if not ratio <= 1:
                    count, worst = violations.get((family, guarantee), (0, 0.0))
                    violations[family, guarantee] = count + 1, max(worst, float(ratio))
    return violations


def test_every_method_has_a_line():
    lifts = {n for n in balance.__all__ if n == "Balancer" or n.startswith(("from_", "to_"))}
    assert {name.split(",")[0] for name in TABLE} == set(balance.__all__) - lifts


@pytest.mark.parametrize("name", BY_GRAMIAN)
def test_the_guarantee_holds(name):
    assert not find_violations(name, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_guarantee_holds_in_many_cases(name):
    violations = find_violations(name, DRAWS, seed=1)
    many = {
        which: count
        for which, (count, _) in violations.items()
        if count > RARE.get((name, *which), 0.0) * DRAWS * STEPS
    }
    assert not many, violations
