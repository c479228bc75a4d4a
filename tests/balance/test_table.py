"""A table of properties of every balancer; a new balancer adds a line to `TABLE`.

Each method is compiled a few times and runs all cases at once: `CASES` holds them stacked, and a
case has three steps, so that the memory of a method is tested too.
"""

import functools
import itertools
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax import balance
from mmjax.balance import Balancer
from mmjax.balance.pullback import pullback_from_jacobian
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Concat
from mmjax.heads import Classification, Regression
from mmjax.model import Model
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step

TASKS, SIZE, STEPS = 5, 9, 3
NAMES = tuple("abcde")


class Line(NamedTuple):
    """A balancer in the table.

    Attributes:
      make: makes the balancer; by default the factory with its defaults.
      draws: whether it draws random numbers, so that tasks are equal in distribution only.
      safe: whether the method guarantees a direction that conflicts with no task, or a function
        that makes a balancer that does.
    """

    make: Callable[[], Balancer] | None = None
    draws: bool = False
    safe: bool | Callable[[], Balancer] = False


def default(name: str) -> Callable[[], Balancer]:
    return lambda: getattr(balance, name)()


TABLE = {
    "aligned": Line(),
    "cagrad": Line(safe=lambda: balance.cagrad(c=1.0)),
    "conflict_free": Line(),
    "cosmos": Line(),
    "db_mtl": Line(),
    "dualproj": Line(safe=True),
    "dwa": Line(lambda: balance.dwa(steps=1)),
    "equal": Line(),
    "excess_mtl": Line(),
    "fairgrad": Line(safe=True),
    "famo": Line(),
    "geometric": Line(),
    "graddrop": Line(draws=True),
    "gradnorm": Line(),
    "gradvac": Line(draws=True),
    "imtl_g": Line(),
    "imtl_l": Line(),
    "krum": Line(),
    "log_stch": Line(lambda: balance.log_stch(warmup=1)),
    "mgda": Line(safe=True),
    "moco": Line(),
    "modo": Line(),
    "nash": Line(safe=True),
    "pbi": Line(),
    "pcgrad": Line(draws=True),
    "rlw": Line(draws=True),
    "scale_invariant": Line(),
    "sdmgrad": Line(),
    "static": Line(lambda: balance.static(dict.fromkeys(NAMES, 0.5))),
    "stch": Line(),
    "trimmed_mean": Line(),
    "uncertainty": Line(),
    "upgrad": Line(safe=True),
}
DRAWN = [name for name, line in TABLE.items() if line.draws]
FIXED = [name for name, line in TABLE.items() if not line.draws]
SAFE = [name for name, line in TABLE.items() if line.safe]


def make_balancer(name: str) -> Balancer:
    return (TABLE[name].make or default(name))()


def test_every_balancer_has_a_line():
    lifts = {n for n in balance.__all__ if n == "Balancer" or n.startswith(("from_", "to_"))}
    assert set(TABLE) == set(balance.__all__) - lifts


class Case(NamedTuple):
    """Gradients of a backbone [t p] and of one head per task [t t], losses, labels."""

    rows: np.ndarray
    heads: np.ndarray
    losses: np.ndarray
    labeled: np.ndarray


class Run(NamedTuple):
    """Results of k steps: gradients of the backbone [k p] and the heads [k t], weights [k t]."""

    backbone: np.ndarray
    heads: np.ndarray
    weights: np.ndarray
    state: object


def case(seed: int = 0, rows=None, losses=None, labeled=(True,) * TASKS, scale=1.0) -> Case:
    """Makes a case, ordinary by default; unlabeled tasks have no loss and no gradient."""
    rng, mask = np.random.default_rng(seed), np.array(labeled)
    ordinary = rng.normal(size=(TASKS, SIZE))
    heads = np.diag(rng.normal(size=TASKS))
    random_losses = rng.uniform(0.5, 2.0, TASKS)
    rows = scale * (ordinary if rows is None else rows)
    losses = random_losses if losses is None else np.array(losses)
    values = (mask[:, None] * rows, mask[:, None] * heads, mask * losses)
    return Case(*(x.astype(np.float32) for x in values), mask)


def permute(case: Case, order: list[int]) -> Case:
    reordered = Case(*(x[order] for x in case))
    return reordered._replace(heads=reordered.heads[:, order])


def degenerate() -> dict[str, Case]:
    """Makes extreme gradients, with ordinary and with extreme losses."""
    rng = np.random.default_rng(7)
    r = rng.normal(size=(TASKS, SIZE))
    wide = 10.0 ** np.array([-10, -5, 0, 5, 10])
    rows = {
        "zero": 0 * r,
        "one zero": r * [[1], [0], [1], [1], [1]],
        "one left": r * [[0], [0], [1], [0], [0]],
        "duplicated": np.stack([r[0], r[0], r[1], r[1], r[1]]),
        "all the same": np.stack([r[0]] * TASKS),
        "opposed": np.stack([r[0], -r[0], r[1], -2 * r[1], r[2]]),
        "rank 2": rng.normal(size=(TASKS, 2)) @ r[:2],
        "tiny": 1e-10 * r,
        "huge": 1e10 * r,
        "wide": wide[:, None] * r,
        "wide, orthogonal": wide[:, None] * np.eye(TASKS, SIZE),
    }
    ordinary = {name: case(rows=x) for name, x in rows.items()}
    extreme = {
        f"{name}, extreme losses": case(rows=x, losses=[0, 1e-10, 1, 1e4, 1e10])
        for name, x in rows.items()
    }
    return ordinary | extreme | {"no loss": case(losses=np.zeros(TASKS))}


DEGENERATE = degenerate()
ORDINARY = [case(seed) for seed in range(6)]
ORDER = [3, 0, 4, 1, 2]
PERMUTED = [permute(one, ORDER) for one in ORDINARY]
SOME = (True, False, True, True, False)
PARTIAL = [case(seed, labeled=SOME) for seed in range(10, 13)]
LOW = [
    jax.tree.map(lambda x: x if x.dtype == bool else x.astype(jnp.bfloat16), one)
    for one in ORDINARY[:2]
]
CONFLICTS = [
    case(rows=np.pad(np.random.default_rng(s).normal(size=(TASKS, 3)), ((0, 0), (0, SIZE - 3))))
    for s in range(20)
]
KINDS = {
    "degenerate": list(DEGENERATE.values()),
    "ordinary": ORDINARY,
    "permuted": PERMUTED,
    "partial": PARTIAL,
    "conflicts": CONFLICTS,
    "rounded": [
        jax.tree.map(lambda x: x if x.dtype == bool else x.astype(np.float32), one) for one in LOW
    ],
}
CASES = [one for cases in KINDS.values() for one in cases]


def steps(balancer: Balancer, one: Case, key: jax.Array, state: object = None) -> Run:
    """Runs three steps with the same gradients and falling losses."""
    shared = {"backbone": True, "head": False}
    whole = pullback_from_jacobian({"backbone": one.rows, "head": one.heads}, shared)
    # Independent estimates of the gradients, which here differ in length only.
    parts = [
        pullback_from_jacobian({"backbone": (1 + i / 8) * one.rows, "head": one.heads}, shared)
        for i in range(balancer.parts)
    ]
    pullback = whole._replace(parts=tuple(parts) if balancer.parts > 1 else ())

    def step(carry, k):
        state, losses = carry
        options = {"key": jax.random.fold_in(key, k), "labeled": one.labeled}
        gradient, w, state = balancer.update(losses, pullback, state, **options)
        after = losses * (0.5 + 0.4 / (1 + losses))
        if balancer.after is not None:
            state = balancer.after(state, losses, after, labeled=one.labeled)
        return (state, after), (gradient["backbone"], gradient["head"], w)

    if state is None:
        params = {"backbone": jnp.zeros(one.rows.shape[1:], jnp.float32), "head": None}
        state = balancer.init(NAMES[: len(one.losses)], params)
    (state, _), out = jax.lax.scan(step, (state, one.losses), jnp.arange(STEPS))
    return Run(*out, state)


def stack(cases: list[Case]) -> Case:
    return Case(*(jnp.asarray(np.stack(x)) for x in zip(*cases, strict=True)))


def run_all(balancer: Balancer, cases: Case, keys: jax.Array) -> Run:
    """Runs all cases as one program, vmapped like seeds."""
    return jax.tree.map(
        np.asarray, jax.jit(jax.vmap(functools.partial(steps, balancer)))(cases, keys)
    )


def split_runs(run: Run, start: int, count: int) -> list[Run]:
    return [jax.tree.map(lambda x, i=i: x[i], run) for i in range(start, start + count)]


DRAWS = 400


@functools.cache
def means(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the mean of the backbone's gradients over many draws, and its squared error."""
    sources = {"ordinary": ORDINARY[0], "permuted": PERMUTED[0], "partial": PARTIAL[0]}
    five = [one for one in sources.values() for _ in range(DRAWS)]
    three = [without_the_unlabeled(PARTIAL[0])] * DRAWS
    gradients = [
        run_all(make_balancer(name), stack(cases), seeds(len(cases))).backbone
        for cases in (five, three)
    ]
    runs = dict(
        zip([*sources, "three"], [*np.split(gradients[0], len(sources)), gradients[1]], strict=True)
    )
    return {kind: (x.mean(0), x.var(0) / DRAWS) for kind, x in runs.items()}


def assert_alike(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
    """Asserts that means differ by less than five standard errors."""
    assert (np.abs(one[0] - other[0]) <= 5 * np.sqrt(one[1] + other[1]) + 1e-5).all()


def seeds(count: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), count)


@functools.cache
def runs(name: str) -> dict[str, list[Run]]:
    """Runs the method on all cases; the results by kind."""
    all_runs, start = run_all(make_balancer(name), stack(CASES), seeds(len(CASES))), 0
    kinds = {}
    for kind, cases in KINDS.items():
        kinds[kind], start = split_runs(all_runs, start, len(cases)), start + len(cases)
    return kinds


def assert_close(got: Run, expected: Run, tolerance: float = 2e-4) -> None:
    """Asserts equal gradients, up to a share of the largest entry."""
    for a, b in zip(got[:2], expected[:2], strict=True):
        scale = np.abs(np.asarray(b, np.float64)).max(axis=1, keepdims=True)
        assert (np.abs(a - b) <= tolerance * scale + 1e-7).all()


@pytest.mark.parametrize("name", TABLE)
def test_finite_at_the_edges(name):
    """Zero, duplicated, opposed, dependent and badly scaled gradients, with extreme losses."""
    for kind, run in zip(DEGENERATE, runs(name)["degenerate"], strict=True):
        for leaf in jax.tree.leaves(run):
            assert np.isfinite(leaf).all(), kind


@pytest.mark.parametrize("name", FIXED)
def test_the_order_of_the_tasks_does_not_matter(name):
    for one, other in zip(runs(name)["ordinary"], runs(name)["permuted"], strict=True):
        assert_close(other._replace(heads=other.heads), one._replace(heads=one.heads[:, ORDER]))


@pytest.mark.parametrize("name", DRAWN)
def test_the_order_of_the_tasks_does_not_matter_on_average(name):
    assert_alike(means(name)["ordinary"], means(name)["permuted"])


def without_the_unlabeled(one: Case) -> Case:
    tasks = np.flatnonzero(SOME)
    return Case(*(x[tasks] for x in one))._replace(heads=one.heads[tasks][:, tasks])


@pytest.mark.parametrize("name", FIXED)
def test_a_task_without_labels_is_as_good_as_absent(name):
    """Five tasks, two without labels, mapped over cases, equal three tasks, each case alone."""
    labeled = np.flatnonzero(SOME)
    alone = jax.jit(functools.partial(steps, make_balancer(name)))
    if name == "static":
        alone = jax.jit(functools.partial(steps, balance.static(dict.fromkeys("abc", 0.5))))
    for one, run in zip(PARTIAL, runs(name)["partial"], strict=True):
        three = jax.tree.map(jnp.asarray, without_the_unlabeled(one))
        expected = alone(three, jax.random.key(0))
        assert not np.abs(run.heads[:, [1, 4]]).any()
        assert_close(run._replace(heads=run.heads[:, labeled]), expected)


@pytest.mark.parametrize("name", DRAWN)
def test_a_task_without_labels_is_as_good_as_absent_on_average(name):
    assert_alike(means(name)["partial"], means(name)["three"])


@pytest.mark.parametrize("name", DRAWN)
def test_vmap_over_seeds_equals_each_alone(name):
    alone, first = jax.jit(functools.partial(steps, make_balancer(name))), len(DEGENERATE)
    keys = seeds(len(CASES))
    for i, run in enumerate(runs(name)["ordinary"][:3]):
        one = jax.tree.map(jnp.asarray, ORDINARY[i])
        assert_close(run, alone(one, keys[first + i]))


@pytest.mark.parametrize("name", TABLE)
def test_on_cpu_every_decomposition_is_of_one_matrix(name):
    """Batched ones can deadlock; see `mmjax.kernels.linear_algebra`."""
    seeds_of = jax.jit(jax.vmap(functools.partial(steps, make_balancer(name))))
    traced = seeds_of.trace(stack(ORDINARY[:2]), seeds(2))
    program = traced.lower(lowering_platforms=("cpu",)).as_text()
    shapes = re.findall(r"@lapack_\w+\(.*: \(tensor<([^>]*)>", program)
    assert program.count("@lapack_") == len(shapes)
    assert all(shape.count("x") == 2 for shape in shapes), shapes


@pytest.mark.parametrize("name", TABLE)
def test_one_task_is_learned_alone(name):
    """The direction is that of its gradient, whatever its length."""
    one = Case(*(x[:1] for x in ORDINARY[0]))._replace(heads=ORDINARY[0].heads[:1, :1])
    balancer = make_balancer(name) if name != "static" else balance.static({"a": 0.5})
    run = jax.jit(functools.partial(steps, balancer))(
        jax.tree.map(jnp.asarray, one), jax.random.key(0)
    )
    for gradient in np.asarray(run.backbone, np.float64):
        length = gradient @ one.rows[0] / (one.rows[0] @ one.rows[0])
        assert length > 0
        np.testing.assert_allclose(gradient, length * one.rows[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SAFE)
def test_no_task_is_worked_against(name):
    """J d >= 0, up to the round-off of the gradients that were weighed."""
    safe, kinds = TABLE[name].safe, ("degenerate", "ordinary", "conflicts")
    cases = [one for kind in kinds for one in KINDS[kind]]
    if callable(safe):
        results = split_runs(run_all(safe(), stack(cases), seeds(len(cases))), 0, len(cases))
    else:
        results = [run for kind in kinds for run in runs(name)[kind]]
    for one, run in zip(cases, results, strict=True):
        rows = one.rows.astype(np.float64)
        norms = np.linalg.norm(rows, axis=1)
        for d, w in zip(run.backbone.astype(np.float64), run.weights, strict=True):
            weighed = np.abs(w.astype(np.float64)) @ norms
            assert (rows @ d >= -1e-4 * norms * weighed - 1e-30).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_bfloat16_gives_what_float32_gives_for_the_same_numbers(name):
    """Weights are computed in float32, and the state keeps its types, as the scan requires."""
    keys = seeds(len(CASES))[-len(LOW) :]
    low = split_runs(run_all(make_balancer(name), stack(LOW), keys), 0, len(LOW))
    for run, expected in zip(low, runs(name)["rounded"], strict=True):
        for a, b in zip(run[:2], expected[:2], strict=True):
            a, b = np.asarray(a[0], np.float64), np.asarray(b[0], np.float64)
            assert np.isfinite(a).all()
            # A draw in lower precision is another draw.
            if not TABLE[name].draws:
                np.testing.assert_allclose(a, b, atol=0.03 * np.abs(b).max())


class MemberState(NamedTuple):
    """A member of `battery`: its state, gradient of the shared parameters, and weights."""

    state: object
    gradient: jax.Array
    weights: jax.Array


def flat(gradient, shared) -> jax.Array:
    """Concatenates the entries of the parameters that are not None in `shared`."""
    entries = jax.tree.map(
        lambda s, g: None if s is None else g.ravel(), shared, gradient, is_leaf=lambda x: x is None
    )
    return jnp.concatenate(jax.tree.leaves(entries))


def battery(balancers: dict[str, Balancer]) -> Balancer:
    """Makes a balancer that uses equal weights and records what each member would have done."""

    def init(tasks, params):
        zero = flat(jax.tree.map(jnp.zeros_like, params), params)
        return {
            n: MemberState(b.init(tasks, params), zero, jnp.zeros(len(tasks)))
            for n, b in balancers.items()
        }

    def update(losses, pullback, states, *, key, labeled):
        rows, ones = pullback.jacobian(), jnp.ones_like(losses)
        once = pullback._replace(jacobian=lambda: rows)
        states_after = {}
        for name, b in balancers.items():
            member = once._replace(parts=pullback.parts[: b.parts])
            gradient, w, state = b.update(
                losses, member, states[name].state, key=key, labeled=labeled
            )
            states_after[name] = MemberState(state, flat(gradient, rows), w)
        return pullback(ones), ones, states_after

    def after(states, before, losses, *, labeled):
        later = {
            n: states[n]._replace(state=b.after(states[n].state, before, losses, labeled=labeled))
            for n, b in balancers.items()
            if b.after is not None
        }
        return states | later

    return Balancer(init, update, after, max(b.parts for b in balancers.values()))


@pytest.mark.slow
def test_devices_and_micro_batches_give_what_the_whole_batch_gives(toy):
    """Every method's gradients, weights and state; labels are spread unevenly over the parts.

    The examples of one task have weights, which are spread unevenly, too.
    """
    model = Model(
        encoders={"vector": MLPEncoder((8,))},
        fusion=Concat(),
        heads={"kind": Classification(4), "other": Classification(4), "size": Regression()},
    )
    data = toy.batch(192, 0)
    data.targets["other"], data.labeled["other"] = 3 - data.targets["kind"], data.labeled["kind"]
    data.labeled["size"][:96] = False
    data = data._replace(weights={"other": np.linspace(0, 0.3, 192, dtype=np.float32)})
    data = jax.tree.map(jnp.asarray, data)
    names = {"static": lambda: balance.static({"kind": 1.0, "other": 2.0, "size": 0.5})}
    balancer = battery({n: names.get(n, functools.partial(make_balancer, n))() for n in TABLE})
    optimizer = optax.sgd(0.05)
    # As in the data, the first half of the examples of every batch has no label of the size.
    indices = np.arange(192).reshape(1, 48, 4).transpose(0, 2, 1)
    results = []
    for devices, accumulate in ((1, 1), (8, 1), (1, 8), (8, 3)):
        options = {"accumulate": accumulate, "axis_name": DEVICE_AXIS}
        step = make_train_step(model, optimizer, balancer, **options)
        state = init_state(model, optimizer, balancer, data, jax.random.key(0))
        program = make_train_program(step, replicas=1, devices=jax.devices()[:devices])
        states = jax.tree.map(lambda x: x[None], state)
        state, _ = program(states, data, split_over_devices(indices, devices))
        results.append(jax.tree.map(np.asarray, state.balancer_state))
    one, *others = results
    for many, name in itertools.product(others, TABLE):
        scale = np.abs(one[name].gradient).max()
        assert scale > 0, name
        np.testing.assert_allclose(
            many[name].gradient, one[name].gradient, atol=2e-3 * scale, err_msg=name
        )
        for a, b in zip(jax.tree.leaves(many[name]), jax.tree.leaves(one[name]), strict=True):
            tolerance = 5e-3 * np.abs(b).max() + 1e-6
            np.testing.assert_allclose(a, b, atol=tolerance, err_msg=name)
