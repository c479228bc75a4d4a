"""What every sharing promises, in one table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from mmjax import balance
from mmjax import sharing as sharings
from mmjax.balance.jacobian_rows import weighted_sum
from mmjax.balance.pullback import differentiate_losses
from mmjax.data.pipeline import split_over_devices
from mmjax.encoders import MLPEncoder
from mmjax.fusion import Sum
from mmjax.heads import Regression
from mmjax.model import Model
from mmjax.parameters import mark_shared_parameters, merge_params, partition_params
from mmjax.sharing import (
    CGC,
    LTB,
    MTAN,
    PLE,
    Copies,
    CrossStitch,
    DSelectK,
    HardSharing,
    MMoE,
    TaskSpecific,
    copied,
)
from mmjax.train.hardware.parallel import DEVICE_AXIS, make_train_program
from mmjax.train.steps.forward import compute_features, compute_predictions, sum_losses
from mmjax.train.steps.state import init_state
from mmjax.train.steps.train_step import make_train_step
from mmjax.types import Batch

TABLE = {
    "hard": HardSharing((5,)),
    "task specific": TaskSpecific((5,)),
    "cross-stitch": CrossStitch((5, 3)),
    "cross-stitch of backbones": CrossStitch((5,), backbones=True),
    "mmoe": MMoE(3, (5,)),
    "mmoe of backbones": MMoE(3, backbones=True),
    "cgc": CGC(2, 1, (5,)),
    "cgc of backbones": CGC(1, 2, backbones=True),
    "ple": PLE(3, 1, 2, (5,)),
    "dselect-k": DSelectK(4, 2, (5,)),
    "dselect-k of backbones": DSelectK(2, 2, backbones=True),
    "mtan": MTAN((5, 3)),
    "ltb": LTB(3, (5, 4)),
    "ltb of backbones": LTB(2, (5,), backbones=True),
}
CASES = pytest.mark.parametrize(
    "sharing",
    [
        pytest.param(s, id=n.replace(" ", "-"), marks=pytest.mark.slow if "backbones" in n else ())
        for n, s in TABLE.items()
    ],
)
TASKS = ("a", "b", "c")


def make_model(sharing, tasks=TASKS):
    return Model(
        encoders={"x": MLPEncoder((6,))},
        fusion=Sum(6),
        heads={t: Regression() for t in tasks},
        sharing=sharing,
    )


def make_batch(examples=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, 4)).astype(np.float32)
    targets = {t: np.sin(i + x[:, i] + 2 * x[:, 3]) for i, t in enumerate(TASKS)}
    return Batch(
        inputs={"x": x},
        present={"x": np.ones(examples, bool)},
        lengths={},
        targets=targets,
        labeled={t: rng.random(examples) < 0.8 for t in TASKS},
    )


def init_shapes(model, batch):
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), *batch[:3])["params"]


def random_params(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: jnp.asarray(0.6 * rng.normal(size=s.shape), s.dtype), shapes)


def two_stages(model, batch):
    """(parameters -> features, (parameters, features) -> losses), while training."""
    # LTB draws while training; its choices have no slope else.
    options = {"compute_dtype": "float32", "train": True, "rngs": {"dropout": jax.random.key(1)}}

    def head_losses(params, features):
        predictions, _ = compute_predictions(model, {"params": params}, features, **options)
        return sum_losses(model, predictions, batch, TASKS), None

    return lambda p: compute_features(model, {"params": p}, batch, **options), head_losses


def jacobian(model, batch):
    forward, head_losses = two_stages(model, batch)
    return jax.jacrev(lambda p: head_losses(p, forward(p)[0])[0])


@pytest.mark.parametrize("name", ["mmoe", "task specific"])
def test_the_pullback_is_the_gradient(name):
    model, batch = make_model(TABLE[name]), make_batch()
    params = random_params(init_shapes(model, batch))
    shared, w = mark_shared_parameters(model, params), jnp.array([0.3, -2.0, 1.5])

    @jax.jit
    def both(params):
        _, pull, _ = differentiate_losses(
            *two_stages(model, batch), params, tasks=TASKS, shared=shared
        )
        rows = jacobian(model, batch)(params)
        if not any(jax.tree.leaves(shared)):
            with pytest.raises(ValueError, match="share no parameters"):
                pull.jacobian()
            of_tasks = partition_params(rows, shared)[0]
        else:
            of_tasks = pull.jacobian()
        return rows, pull(w), pull.shared(w), pull.task_specific(w), of_tasks

    rows, gradient, of_shared, of_own, of_tasks = both(params)
    expected = (weighted_sum(rows, w), weighted_sum(rows, w), partition_params(rows, shared)[0])
    found = (gradient, merge_params(of_shared, of_own), of_tasks)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@CASES
def test_gradients_reach_every_parameter_and_own_ones_from_their_task_alone(sharing):
    """An own stack's rows are the tasks' in their order; all else is reached by several tasks."""
    model, batch = make_model(sharing), make_batch()
    params = random_params(init_shapes(model, batch))
    shared, rows = mark_shared_parameters(model, params), jax.jit(jacobian(model, batch))(params)
    flags = jax.tree.leaves(shared)
    assert len(flags) == len(jax.tree.leaves(rows))
    for (path, leaf), is_shared in zip(jax.tree.leaves_with_path(rows), flags, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        reached = np.abs(leaf) > 0
        if is_shared:
            assert reached.reshape(3, -1).any(axis=1).sum() >= 2, name
        elif name.startswith("heads_"):
            assert reached.reshape(3, -1).any(axis=1).sum() == 1, name
        else:
            blocks = reached.reshape(3, 3, -1).any(axis=2)
            np.testing.assert_array_equal(blocks, np.eye(3, dtype=bool), err_msg=name)


def given(sharing, tasks, seed=0):
    """What the model would hand to the sharing."""
    rng = np.random.default_rng(seed)
    wanted = sharing.copies(tasks) if hasattr(sharing, "copies") else None
    if wanted is None:
        return jnp.asarray(rng.normal(size=(7, 4)), jnp.float32)
    return jax.tree.map(lambda n: jnp.asarray(rng.normal(size=(n, 7, 4)), jnp.float32), wanted)


@CASES
def test_jit_seeds_half_precision_one_task_and_gates(sharing):
    def ready(tasks, seed=0):
        x = given(sharing, tasks)
        init = jax.eval_shape(lambda k: sharing.init(k, x, tasks, train=False), jax.random.key(0))
        return x, random_params(init, seed)

    def run(params, x, tasks=TASKS):
        return sharing.apply(params, x, tasks, train=False, mutable=["intermediates"])

    x, one = ready(TASKS)
    alone_x, alone = ready(("a",))
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (one, x))
    stacked = jax.tree.map(lambda *p: jnp.stack(p), ready(TASKS, 1)[1], one)

    @jax.jit
    def everything(one, stacked, half, x):
        return (
            run(one, x),
            jax.vmap(run, (0, None), axis_size=2)(stacked, x),
            run(*half),
        )

    expected, together, in_half = everything(one, stacked, half, x)
    second = jax.tree.map(lambda a: a[1], together)
    for a, b in zip(jax.tree.leaves(second), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    out, sown = expected
    for gates in sown.get("intermediates", {}).get("gates", ()):
        np.testing.assert_allclose(gates.sum(-1), 1, atol=1e-5)
        assert gates.min() >= 0 and gates.shape[:2] == (3, 7)
    for t in TASKS:
        assert in_half[0][t].dtype == jnp.bfloat16
        near = 0.1 + 0.05 * jnp.abs(out[t]).max()
        close = np.abs(in_half[0][t].astype(jnp.float32) - out[t]) < near
        assert close.mean() > 0.9  # a rounded choice may be another
        assert jnp.isfinite(in_half[0][t].astype(jnp.float32)).all()
    single = jax.eval_shape(lambda p, x: run(p, x, ("a",))[0], alone, alone_x)
    assert jax.tree.map(jnp.shape, single) == {"a": out["a"].shape}


@CASES
def test_the_order_of_tasks_changes_nothing(sharing):
    batch, programs = make_batch(4), []
    for tasks in (TASKS, TASKS[::-1]):
        model = make_model(sharing, tasks)
        shapes = init_shapes(model, batch)

        def init(key, model=model):
            return model.init(key, *batch[:3], train=False)

        def apply(params, model=model):
            return model.apply({"params": params}, *batch[:3], train=False)

        programs.append(
            [str(jax.make_jaxpr(f)(a)) for f, a in ((init, jax.random.key(0)), (apply, shapes))]
        )
    assert programs[0] == programs[1]


def test_cross_stitch_of_one_task_starts_as_a_plain_trunk():
    x = Copies(shared=jnp.ones((1, 7, 4)))
    out, _ = CrossStitch(backbones=True).init_with_output(jax.random.key(0), x, "a", train=False)
    np.testing.assert_array_equal(out["a"], x.shared[0])


def test_cross_stitch_starts_near_the_identity():
    x = Copies(shared=jnp.asarray(np.random.default_rng(0).normal(size=(3, 7, 4)), jnp.float32))
    out, params = CrossStitch(backbones=True).init_with_output(
        jax.random.key(0), x, TASKS, train=False
    )
    expected = np.full((3, 3), 0.05) + 0.85 * np.eye(3)
    np.testing.assert_allclose(params["params"]["own_stitch"], expected, atol=1e-6)
    for i, t in enumerate(TASKS):
        distances = [np.abs(out[t] - column).mean() for column in x.shared]
        assert np.argmin(distances) == i


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dselect_uses_at_most_k_experts_when_its_steps_have_ended(k):
    sharing, x = DSelectK(8, k, (2,)), given(HardSharing(), TASKS)

    @jax.jit
    def gates(key):
        params = sharing.init(key, x, TASKS, train=False)["params"]
        ended = params | {"own_selectors": jax.tree.map(lambda p: 1e6 * p, params["own_selectors"])}
        return [
            sharing.apply({"params": p}, x, TASKS, train=False, mutable=["intermediates"])[1]
            for p in (params, ended)
        ]

    start, end = (s["intermediates"] for s in gates(jax.random.key(0)))
    np.testing.assert_allclose(start["gates"][0], 1 / 8, atol=0.06)
    np.testing.assert_allclose(start["entropy"][0], k * np.log(8), rtol=0.03)
    used = (np.asarray(end["gates"][0]) > 0).sum(-1)
    assert used.max() <= k and used.min() >= 1
    np.testing.assert_allclose(end["gates"][0].sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(end["entropy"][0], 0, atol=1e-6)


def test_ltb_draws_a_tree_for_each_example_while_training():
    sharing = LTB(4, (8,))
    x = jnp.ones((400, 4))
    params = jax.jit(lambda k: sharing.init(k, x, TASKS, train=False))(jax.random.key(0))
    out = sharing.apply(params, x, TASKS, train=True, rngs={"dropout": jax.random.key(1)})
    shares = np.unique(np.asarray(out["a"]).round(4), axis=0, return_counts=True)[1] / 400
    np.testing.assert_allclose(shares, [0.25] * 4, atol=0.08)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMoE(3), "MMoE.features is empty; give it .* or set backbones=True"),
        (lambda: PLE(2, 1, 1, ()), "PLE.features is empty; give it at least one width.$"),
        (lambda: CrossStitch(), "CrossStitch.features is empty"),
        (lambda: MMoE(0, (3,)), "MMoE.experts is 0; it must be at least 1"),
        (lambda: CGC(1, 0, (3,)), "CGC.own is 0; it must be at least 1"),
        (lambda: DSelectK(6, 2, (3,)), "DSelectK.experts is 6; it must be a power of two"),
        (lambda: DSelectK(4, 5, (3,)), "DSelectK.k is 5; it must be at most experts=4"),
        (lambda: LTB(2, (3,), temperature=0.0), "LTB.temperature is 0.0; it must be positive"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, s in TABLE.items() if not isinstance(s, LTB)])
def test_eight_devices_train_as_one(name):
    """But for LTB, whose draws differ from device to device as dropout's do."""
    model, data = make_model(TABLE[name]), jax.tree.map(jnp.asarray, make_batch(64))
    optimizer, chosen = optax.sgd(0.05, momentum=0.9), balance.equal()
    step = make_train_step(model, optimizer, chosen, axis_name=DEVICE_AXIS)
    indices = np.arange(64).reshape(1, 4, 16)
    results = []
    for n in (1, 8):
        init = jax.jit(lambda key: init_state(model, optimizer, chosen, data, key))
        state = jax.tree.map(lambda x: x[None], init(jax.random.key(0)))
        program = make_train_program(step, replicas=1, devices=jax.devices()[:n])
        results.append(program(state, data, split_over_devices(indices, n))[0].params)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_sharing_is_in_the_table():
    public = {getattr(sharings, name) for name in sharings.__all__} - {Copies, copied}
    assert public == {type(sharing) for sharing in TABLE.values()}


@pytest.mark.slow
@CASES
def test_a_sharing_is_traced_for_any_number_of_examples(sharing):
    model = make_model(sharing)
    arguments = ({"x": jnp.ones((2, 5))}, {"x": jnp.ones(2, bool)}, {})
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), *arguments)
    (batch,) = export.symbolic_shape("batch")
    structs = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), arguments
    )
    outputs = jax.eval_shape(functools.partial(model.apply, train=False), variables, *structs)
    assert {x.shape for x in outputs.values()} == {(batch,)}
