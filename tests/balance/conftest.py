"""Random problems: gradients of 1 to 40 tasks, of any rank and scale, for one vmapped program."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance.jacobian_rows import gramian
from mmjax.balance.pullback import pullback_from_jacobian

SLOTS, SIZE = 40, 48


@dataclass(frozen=True)
class Problems:
    """n problems with 1 to SLOTS tasks in random places; the other places are unlabeled."""

    rows: np.ndarray  # Float32[n SLOTS SIZE]
    losses: np.ndarray  # Float32[n SLOTS]
    labeled: np.ndarray  # Bool[n SLOTS]

    def each(self):
        """Yields (rows, losses) of the tasks that exist, in float64."""
        for rows, losses, mask in zip(self.rows, self.losses, self.labeled, strict=True):
            yield rows[mask].astype(np.float64), losses[mask].astype(np.float64)

    def weights(self, of_gram):
        """Returns the weights of the tasks that exist, from one program for all problems."""
        keys = jax.random.split(jax.random.key(0), len(self.rows))

        @jax.jit
        @jax.vmap
        def program(rows, labeled, key):
            return of_gram(gramian(rows), key=key, labeled=labeled)

        w = np.asarray(program(self.rows, self.labeled, keys), np.float64)
        return [w_k[mask] for w_k, mask in zip(w, self.labeled, strict=True)]


def random_rows(rng, tasks, spread, scale):
    """Draws rows of a random rank with singular values within a factor of 3, and scales them."""
    rank = rng.integers(1, tasks + 1)
    left = np.linalg.qr(rng.normal(size=(tasks, rank)))[0]
    right = np.linalg.qr(rng.normal(size=(SIZE, rank)))[0]
    rows = (left * rng.uniform(0.3, 1, rank)) @ right.T
    return rows * scale * 10 ** rng.uniform(-spread, spread, (tasks, 1))


@pytest.fixture(scope="session")
def problems():
    """Returns a function problems(spread, scale, n, seed) that draws n problems.

    All gradients of a problem are scaled by up to 10^scale either way, and each by up to 10^spread
    more. The number of tasks and the scale of the k-th problem do not depend on the seed.
    """

    def make(spread=0.0, scale=6.0, n=200, seed=0):
        rng = np.random.default_rng(seed)
        scales = 10 ** np.random.default_rng(99).uniform(-scale, scale, n)
        rows = np.zeros((n, SLOTS, SIZE), np.float32)
        losses, labeled = np.zeros((n, SLOTS), np.float32), np.zeros((n, SLOTS), bool)
        for k in range(n):
            tasks = 1 + k % SLOTS
            slots = rng.choice(SLOTS, tasks, replace=False)
            rows[k, slots] = random_rows(rng, tasks, spread, scales[k])
            losses[k, slots] = 10 ** rng.uniform(-3, 3, tasks)
            labeled[k, slots] = True
        return Problems(rows, losses, labeled)

    return make


@functools.cache
def jitted(of_gram):
    return jax.jit(of_gram)


@pytest.fixture(scope="session")
def weights():
    """Returns weights(of_gram, rows) of at most 3 gradients, from one program for all tests."""

    def run(of_gram, rows):
        rows = np.asarray(rows, np.float32)
        gram, labeled = np.zeros((3, 3), np.float32), np.arange(3) < len(rows)
        gram[: len(rows), : len(rows)] = rows @ rows.T
        w = np.asarray(jitted(of_gram)(gram, key=jax.random.key(0), labeled=labeled))
        return w[: len(rows)].astype(np.float64)

    return run


class Steps(NamedTuple):
    """Results of k steps of a balancer on n problems; the gradients of the heads are all 1."""

    shared: np.ndarray  # [n k SIZE]
    task_specific: np.ndarray  # [n k SLOTS]
    weights: np.ndarray  # [n k SLOTS]
    state: Any  # after the last step


@pytest.fixture(scope="session")
def run():
    """Returns a function run(balancer, [problems of step 0, of step 1, ...])."""

    def run(balancer, steps):
        def one(rows, losses, labeled, key):
            def step(state, x):
                rows, losses, labeled, key = x
                heads = jnp.diag(labeled.astype(jnp.float32))
                pullback = pullback_from_jacobian({"s": rows, "o": heads}, {"s": True, "o": False})
                gradient, w, state = balancer.update(
                    losses, pullback, state, key=key, labeled=labeled
                )
                return state, (gradient["s"], gradient["o"], w)

            names = [str(i) for i in range(SLOTS)]
            state = balancer.init(names, {"s": jnp.zeros(SIZE), "o": None})
            keys = jax.random.split(key, len(steps))
            state, out = jax.lax.scan(step, state, (rows, losses, labeled, keys))
            return Steps(*out, state)

        parts = [(p.rows, p.losses, p.labeled) for p in steps]
        arrays = [np.stack(x, axis=1) for x in zip(*parts, strict=True)]
        keys = jax.random.split(jax.random.key(0), len(arrays[0]))
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(*arrays, keys))

    return run


@pytest.fixture(scope="session")
def leaning():
    """Returns leaning(problems, lean), which adds `lean` times its length to each row, along u.

    With a lean above 1 all rows of a problem have positive inner products with the direction u.
    """

    def lean(sets, by):
        rng = np.random.default_rng(1)
        common = rng.normal(size=(len(sets.rows), 1, SIZE))
        common /= np.linalg.norm(common, axis=2, keepdims=True)
        lengths = np.linalg.norm(sets.rows.astype(np.float64), axis=2, keepdims=True)
        rows = sets.rows + by * lengths * common
        return dataclasses.replace(sets, rows=rows.astype(np.float32))

    return lean
