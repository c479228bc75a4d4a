"""Replicas: trainings of one program that differ in seeds and numbers, against each alone."""

import dataclasses

import chex
import fiddle as fdl
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax import files
from mmjax.config import ConfigError, apply_setting, flatten_config
from mmjax.layers.dropout import Dropout
from mmjax.study.packing import (
    Unit,
    check_vmapped,
    get_vmapped_numbers,
    group_replicas,
    make_builder,
    make_sweep,
    split_replicas,
)
from mmjax.study.study_plan import check_plan, make_study_plan
from mmjax.train.divergence import NonFiniteError
from mmjax.train.hardware.device_memory import MemoryShortError, get_usable_memory
from mmjax.train.loop import fit
from mmjax.train.programs import Programs
from mmjax.train.traced_hparams import TracedNumber, UntraceableError
from tests.study import small_study

ONE = jax.devices()[:1]


@pytest.fixture(autouse=True)
def _no_annotations():
    """A traced number is not a float: annotations are not checked, as in a user's process."""
    was = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", was)


def changed(*settings: str) -> fdl.Buildable:
    """The small experiment under SGD: Adam would amplify rounding."""
    config = small_study.experiment.as_buildable()
    for setting in ("optimizer=optax.sgd(0.05, momentum=0.5)", *settings):
        config = apply_setting(config, setting)
    return config


def units(root, cases, vmapped):
    """One unit a case, a list of settings with a seed."""
    made = []
    for i, (seed, *settings) in enumerate(cases):
        config = changed(*settings)
        made.append(Unit(root / str(i), config, (seed,), get_vmapped_numbers(config, vmapped)))
    return made


def together(root, cases, vmapped, **options):
    """The cases as one program; checks that it is one."""
    made = units(root, cases, vmapped)
    (replicas,) = group_replicas(made, None)
    build = make_builder(made[0].config)
    experiment = build(made[0].config)
    for unit in made:
        unit.home.mkdir()
    return fit(
        experiment,
        root / "program",
        seeds=[replica.seed for replica in replicas],
        sweep=make_sweep(replicas, experiment),
        homes=[replica.unit.home for replica in replicas],
        **{"devices": ONE, **options},
    )


def check_each_alone(root, cases, vmapped, **options):
    """Initial state, logs, parameters and metrics of every replica are those of the case alone."""
    found = together(root, cases, vmapped, **options)
    state = jax.device_get(found.state)
    finals = []
    for i, (seed, *settings) in enumerate(cases):
        config = changed(*settings)
        alone = fit(make_builder(config)(config), root / f"alone{i}", seeds=(seed,), devices=ONE)
        mine = jax.tree.map(lambda x, i=i: x[i], state)
        expected = jax.tree.map(lambda x: x[0], jax.device_get(alone.state))
        finals.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(mine.train.params)]))
        for part in ("params", "averages"):
            trees = (getattr(x.train, part) for x in (mine, expected))
            chex.assert_trees_all_close(*trees, rtol=1e-4, atol=2e-5)
        assert (mine.train.key == expected.train.key).all()
        assert found.test[i] == pytest.approx(alone.test[0], rel=1e-3, abs=1e-4)
        logs = [
            files.read_log(directory / f"metrics-seed{seed}.jsonl").records
            for directory in (root / str(i), root / f"alone{i}")
        ]
        for one, other in zip(*logs, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    return finals


@pytest.mark.slow
@pytest.mark.usefixtures("seeds_run")
def test_seeds_rates_weights_and_dropout_are_those_of_each_alone(tmp_path):
    """With a dropout rate of 0 among others, and a head's constant, which the host uses too."""
    paths = (
        "optimizer.learning_rate",
        "balancer.weights.kind",
        "model.sharing.dropout",
        "model.heads.size.scale",
    )

    def case(seed, *values):
        settings = [f"{path}={value}" for path, value in zip(paths, values, strict=True)]
        return (seed, "balancer=static({'kind': 1.0, 'size': 0.5})", *settings)

    cases = [case(0, 0.1, 1, 0.3, 1.1), case(0, 0.03, 0.2, 0.0, 1.1), case(4, 0.1, 2, 0.6, 2.0)]
    finals = check_each_alone(tmp_path, cases, paths)
    for i in range(2):
        assert np.abs(finals[i] - finals[i + 1]).max() > 1e-2


@pytest.mark.slow
def test_rates_of_modality_dropout_are_those_of_each_alone(tmp_path):
    """None at all among them, which alone is a program without modality dropout."""
    path = "modality_dropout"
    finals = check_each_alone(tmp_path, [(0, f"{path}={r}") for r in (0.0, 0.2, 0.6)], (path,))
    for i in range(2):
        assert np.abs(finals[i] - finals[i + 1]).max() > 1e-3


@pytest.mark.slow
def test_decays_of_averages_are_those_of_each_alone(tmp_path):
    path = "ema"
    check_each_alone(tmp_path, [(0, f"{path}={decay}") for decay in (0.5, 0.95)], (path,))


def test_a_bad_rate_of_modality_dropout_is_refused_at_the_door():
    study = dataclasses.replace(
        small_study.STUDY,
        axes={"modality_dropout": ["0.1", "1.2"]},
        vmapped=("modality_dropout",),
    )
    plan = make_study_plan("rates", study)
    with pytest.raises(ConfigError, match=r"modality_dropout is 1\.2; it must be between 0 and 1"):
        check_plan(plan, ONE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("balancer", "path", "values"),
    [
        ("cagrad()", "balancer.c", (0.2, 0.8)),
        ("dwa(steps=2)", "balancer.temperature", (0.5, 4.0)),
        ("gradvac()", "balancer.beta", (0.01, 0.5)),
    ],
)
def test_a_balancers_constant_is_that_of_each_alone(tmp_path, balancer, path, values):
    cases = [(1, f"balancer={balancer}", f"{path}={value}") for value in values]
    finals = check_each_alone(tmp_path, cases, (path,))
    assert np.abs(finals[0] - finals[1]).max() > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_replicas_that_are_spread_over_devices_are_the_same(tmp_path, devices):
    """Four replicas on two devices, and on four; draws of dropout too."""
    path = "optimizer.learning_rate"
    cases = [(seed, f"{path}={rate}") for rate in (0.02, 0.1) for seed in (0, 1)]
    check_each_alone(tmp_path, cases, (path,), devices=jax.devices()[:devices])


def programs_of(root, cases, vmapped):
    made = units(root, cases, vmapped)
    (replicas,) = group_replicas(made, None)
    experiment = make_builder(made[0].config)(made[0].config)
    return Programs(experiment, [x.seed for x in replicas], ONE, make_sweep(replicas, experiment))


@pytest.mark.parametrize(
    ("path", "values", "reason"),
    [
        ("model.sharing.features.0", (4, 8), None),
        ("model.fusion.width", (4, 8), "must be one Python number"),
        ("balancer.c", (0.0, 0.5), "branches on its value, and not in the same way for 0.0, 0.5"),
    ],
)
def test_a_number_that_decides_the_program_is_refused(tmp_path, path, values, reason):
    base = ("model.fusion=Gated(width=6)", "balancer=cagrad()")
    if reason is None:
        with pytest.raises(ConfigError, match=r"no path|which no arm has"):
            check_vmapped((path,), [flatten_config(changed(*base))])
        return
    cases = [(0, *base, f"{path}={value}") for value in values]
    with pytest.raises(UntraceableError, match=rf"{path} cannot be traced: .*{reason}"):
        programs_of(tmp_path, cases, (path,))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("epochs", "used outside of the compiled program"),
        ("optimizer.learning_rat", "Did you mean optimizer.learning_rate"),
        ("model.fusion", "is not a number but Concat"),
    ],
)
def test_paths_that_hold_no_traced_number_are_refused(path, message):
    with pytest.raises(ConfigError, match=message):
        check_vmapped((path,), [flatten_config(changed())])


def test_arms_share_a_program_if_they_differ_in_vmapped_numbers_alone(tmp_path):
    rate, drop = "optimizer.learning_rate", "model.sharing.dropout"
    cases = [(0, f"{rate}=0.1"), (1, f"{rate}=0.2"), (0, f"{drop}=0.5"), (0, "balancer=pcgrad()")]
    sizes = [len(replicas) for replicas in group_replicas(units(tmp_path, cases, (rate,)), None)]
    assert sizes == [2, 1, 1]
    sizes = [
        len(replicas) for replicas in group_replicas(units(tmp_path, cases, (rate, drop)), None)
    ]
    assert sizes == [3, 1]


def test_replicas_are_split_evenly():
    assert [len(x) for x in split_replicas([None] * 10, 4)] == [3, 3, 4]
    assert [len(x) for x in split_replicas([None] * 10, None)] == [10]
    assert [len(x) for x in split_replicas([None] * 3, 1)] == [1, 1, 1]


@pytest.mark.slow
def test_a_replica_that_is_no_longer_finite_fails_alone(tmp_path):
    """The other arm's numbers are those without it."""
    path = "optimizer.learning_rate"
    cases = [(0, f"{path}=1e30"), (0, f"{path}=0.05")]
    found = together(tmp_path, cases, (path,))
    assert list(found.failed) == [0] and "(seed 0)" in str(found.failed[0])
    alone = tmp_path / "alone"
    alone.mkdir()
    expected = together(alone, cases[1:], (path,))
    assert found.test[1] == pytest.approx(expected.test[0], rel=1e-3, abs=1e-4)
    # Resumed, it is still known to have failed.
    again = fit_again(tmp_path, cases, path)
    assert list(again.failed) == [0]
    with pytest.raises(NonFiniteError, match="Lower the learning rate"):
        bad = tmp_path / "bad"
        bad.mkdir()
        together(bad, cases[:1], (path,))


def fit_again(root, cases, path):
    made = units(root, cases, (path,))
    (replicas,) = group_replicas(made, None)
    experiment = make_builder(made[0].config)(made[0].config)
    return fit(
        experiment,
        root / "program",
        seeds=[replica.seed for replica in replicas],
        sweep=make_sweep(replicas, experiment),
        homes=[replica.unit.home for replica in replicas],
        devices=ONE,
    )


def test_a_program_that_needs_too_much_memory_is_refused(tmp_path):
    with pytest.raises(MemoryShortError, match=r"program of 1 replica needs .*accumulate=4"):
        together(tmp_path, [(0,)], (), memory=1000)
    assert get_usable_memory(ONE) > 2**28
    assert get_usable_memory(jax.devices()[:2]) == get_usable_memory(ONE) // 2


@pytest.mark.slow
def test_the_test_split_is_left_alone_if_asked(tmp_path):
    assert together(tmp_path, [(0,)], (), test=False).test == []


def test_a_number_answers_what_all_replicas_agree_on():
    number = TracedNumber("a.b", (0.5, 2.0), jnp.float32(2.0))
    assert number > 0 and not number < 0.5 and number <= 2 and number != 1
    assert bool(number)
    assert float(1 - number) == -1 and float(number**2) == 4 and float(-number) == -2
    assert float(jnp.exp(number)) == pytest.approx(np.exp(2.0), rel=1e-6)
    with pytest.raises(UntraceableError, match=r"a\.b: .* not in the same way for 0.5, 2.0"):
        number < 1  # noqa: B015
    for needs in (float, int, range, lambda n: [0][n]):
        with pytest.raises(UntraceableError, match=r"a\.b must be one Python number"):
            needs(number)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_dropout_is_flaxs(rate):
    """The same draws, with a rate that is a number and one that is traced."""
    x = jax.random.normal(jax.random.key(0), (50, 20))
    rngs = {"dropout": jax.random.key(1)}

    class Flax(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dropout(rate, name="d")(x, deterministic=False)

    class Ours(nn.Module):
        rate: float

        @nn.compact
        def __call__(self, x):
            return Dropout(self.rate, name="d")(x, train=True)

    expected = Flax().apply({}, x, rngs=rngs)
    traced = jax.jit(lambda r: Ours(r).apply({}, x, rngs=rngs))
    for found in (Ours(rate).apply({}, x, rngs=rngs), traced(rate)):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert Ours(rate).apply({}, x.astype(jnp.bfloat16), rngs=rngs).dtype == jnp.bfloat16
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, train=False), x)


@pytest.mark.slow
def test_optax_numbers_can_be_traced():
    """Those that sweeps set most: the result is that of the plain number."""
    params = {"w": jnp.ones(3)}

    def after(make, value):
        optimizer = make(value)
        state = optimizer.init(params)
        now = params
        for _ in range(3):
            updates, state = optimizer.update(jax.tree.map(lambda x: 2 * x, now), state, now)
            now = optax.apply_updates(now, updates)
        return now["w"]

    makers = {
        "b1": (lambda v: optax.adam(0.1, b1=v), (0.5, 0.9)),
        "decay": (lambda v: optax.adamw(0.1, weight_decay=v), (0.1, 0.9)),
        "clip": (lambda v: optax.chain(optax.clip_by_global_norm(v), optax.sgd(0.1)), (0.5, 2.0)),
        "cosine": (lambda v: optax.sgd(optax.cosine_decay_schedule(v, 10)), (0.1, 0.2)),
    }
    for name, (make, values) in makers.items():
        found = jax.vmap(lambda v, m=make, s=values: after(m, TracedNumber("p", s, v)))(
            jnp.array(values)
        )
        expected = jnp.stack([after(make, value) for value in values])
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
