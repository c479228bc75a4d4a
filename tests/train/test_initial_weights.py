"""`Experiment.init`: parameters and statistics of files, in every replica's first state."""

import shutil
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax import cli, files, provenance
from mmjax.encoders import RecurrentEncoder, Wrap
from mmjax.pretrained import Rename, weights
from mmjax.pretrained.weight_loading import check_and_record_weights
from mmjax.train.best_variables import evaluate_best, load_best
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.loop import fit
from mmjax.train.programs import Programs
from mmjax.train.steps.initial_variables import load_initial_weights

ONE = jax.devices()[:1]


@pytest.fixture
def kernels(tmp_path):
    """A file with the arrays of the toy's vector encoder."""
    rng = np.random.default_rng(0)
    path = tmp_path / "vector.npz"
    arrays = {"Dense_0.weight": rng.normal(size=(8, 6)), "Dense_0.bias": rng.normal(size=8)}
    np.savez(path, **{name: array.astype(np.float32) for name, array in arrays.items()})
    return path, arrays


NAMES = (
    Rename("Dense_0.weight", "Dense_0/kernel", "linear"),
    Rename("Dense_0.bias", "Dense_0/bias"),
)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_every_seed_starts_from_the_file(toy, kernels, seeds_run, devices):
    path, arrays = kernels
    plain = Programs(toy.experiment(), (0, 1), jax.devices()[:devices], checked=True)
    experiment = toy.experiment(init={"encoders_vector": weights(path, NAMES)})
    programs = Programs(experiment, (0, 1), jax.devices()[:devices], checked=True)
    state, other = jax.device_get((programs.init(), plain.init()))
    for params in (state.train.params, state.best_params):
        encoder = params.pop("encoders_vector")["Dense_0"]
        for seed in range(2):
            wanted = arrays["Dense_0.weight"].T.astype(np.float32)
            np.testing.assert_array_equal(encoder["kernel"][seed], wanted)
            np.testing.assert_array_equal(
                encoder["bias"][seed], arrays["Dense_0.bias"].astype(np.float32)
            )
    other.train.params.pop("encoders_vector")
    jax.tree.map(np.testing.assert_array_equal, state.train.params, other.train.params)


def test_what_does_not_fit_is_refused_before_training(toy, kernels):
    path, _ = kernels
    for init, message in (
        ({"encoders.vector": weights(path)}, r"no parameters there\. Did you mean encoders_vector"),
        ({"encoders_vector": weights(path)}, r"init\['encoders_vector'\]: .*parameters that no"),
        ({"encoders_sequence": weights(path, NAMES)}, "there is no Dense_0/kernel"),
    ):
        with pytest.raises(ValueError, match=message):
            check_experiment(toy.experiment(init=init), 1)
    check_experiment(toy.experiment(init={"encoders_vector": weights(path, NAMES)}), 1)


def test_nested_parts_and_statistics(tmp_path):
    shapes = {
        "params": {"a": {"norm": {"scale": np.zeros(2, "f")}}, "b": {"bias": np.zeros(1, "f")}},
        "batch_stats": {"a": {"norm": {"mean": np.zeros(2, "f"), "var": np.zeros(2, "f")}}},
    }

    whole = {"params/b/bias": np.ones(1, "f"), "params/a/norm/scale": np.ones(2, "f")}
    averages = {f"batch_stats/a/norm/{x}": np.full(2, 5.0, "f") for x in ("mean", "var")}
    np.savez(tmp_path / "whole.npz", **whole, **averages)
    np.savez(tmp_path / "scale.npz", scale=np.full(2, 4.0, "f"))
    init = {
        "a/norm": weights(tmp_path / "scale.npz", allow=("mean", "var")),
        "": weights(tmp_path / "whole.npz"),
    }
    loaded = load_initial_weights(init, shapes)
    assert loaded["params"]["b"]["bias"].tolist() == [1.0]
    assert loaded["params"]["a"]["norm"]["scale"].tolist() == [4.0, 4.0]
    assert loaded["batch_stats"]["a"]["norm"]["mean"].tolist() == [5.0, 5.0]


@pytest.mark.slow
def test_a_run_starts_another_and_finished_runs_need_no_file(toy, tmp_path):
    model = toy.model()
    normed = {"vector": Wrap(nn.BatchNorm(momentum=0.8)), "sequence": RecurrentEncoder(width=5)}
    first = toy.experiment(model=model.clone(encoders=normed), epochs=1)
    arm = tmp_path / "all"
    best = jax.device_get(fit(first, arm, seeds=(3,), devices=ONE).state.best)
    experiment = toy.experiment(model=first.model, epochs=1, init={"": weights(arm)})
    start = jax.device_get(Programs(experiment, (0,), ONE).init()).train
    jax.tree.map(np.testing.assert_array_equal, start.all_variables, best)
    result = fit(experiment, tmp_path / "second", devices=ONE)
    shutil.rmtree(arm)
    assert evaluate_best(experiment, tmp_path / "second", seeds=(0,)) == result.test
    load_best(experiment, tmp_path / "second")
    again = fit(experiment, tmp_path / "second", devices=ONE)
    jax.tree.map(np.testing.assert_array_equal, again.state.best, result.state.best)


@pytest.mark.slow
def test_fit_refuses_to_continue_with_other_weights(toy, kernels, tmp_path):
    """A run needs the file only at its start, but if it is there it must be the same one."""
    path, arrays = kernels
    init, data = {"encoders_vector": weights(path, NAMES)}, toy.dataset(32)
    experiment, home = toy.experiment(data=data, epochs=1, init=init), tmp_path / "run"
    result = fit(experiment, home, devices=ONE)
    with pytest.raises(ValueError, match=r"other weights in 'encoders_vector': .* has none"):
        fit(toy.experiment(data=data, epochs=1), home, devices=ONE)
    np.savez(path, **{name: 2 * array.astype(np.float32) for name, array in arrays.items()})
    with pytest.raises(ValueError, match=r"reads .*vector\.npz, of another SHA-256.*Restore them"):
        fit(experiment, home, devices=ONE)
    path.unlink()
    assert fit(experiment, home, devices=ONE).test == result.test


def test_other_weights_are_recorded_where_that_is_permitted(kernels, tmp_path):
    path, arrays = kernels
    init = {"encoders_vector": weights(path, NAMES)}
    check_and_record_weights(init, tmp_path)
    np.savez(path, **arrays)
    check_and_record_weights(init, tmp_path, allow=True)
    check_and_record_weights(init, tmp_path)
    stored = files.read_json(tmp_path / "weights.json")
    assert stored["weights"] == {"encoders_vector": files.compute_sha256(path)}


EXPERIMENT = """
import numpy as np, optax
from mmjax import Experiment, Model, encoders, fusion, heads
from mmjax.config import auto_config, single_modality
from mmjax.data import interactions
from mmjax.pretrained import Rename, weights


@auto_config
def experiment() -> Experiment:
    return Experiment(
        data=interactions(train=64, validation=32, test=32),
        model=Model(
            encoders={"a": encoders.MLPEncoder((4,)), "b": encoders.MLPEncoder((4,))},
            fusion=fusion.Concat(),
            heads={"redundancy": heads.Classification(2)},
        ),
        optimizer=optax.sgd(0.1), epochs=1, batch_size=16, eval_batch_size=16,
        init={"encoders_a": weights("a.npz", names=(Rename("w", "Dense_0/kernel"),), allow=("*",))},
    )


ARMS = single_modality
"""


@pytest.mark.slow
def test_commands_record_the_digest_and_refuse_other_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("starts.py").write_text(EXPERIMENT)
    np.savez("a.npz", w=np.ones((10, 4), np.float32))
    digest = files.compute_sha256(Path("a.npz"))
    command = ["run", "starts.py", "--workdir", "w", "--resume"]
    cli.script(command)
    (record,) = provenance.read_records(Path("w"))
    assert record["weights"] == {"all/encoders_a": digest, "a/encoders_a": digest}
    assert set(files.read_json(Path("w/summary.json"))) == {"all", "a", "b"}
    Path("a.npz").rename("gone.npz")
    cli.script(["evaluate", "w"])
    np.savez("a.npz", w=np.zeros((10, 4), np.float32))
    with pytest.raises(SystemExit):
        cli.script(command)
    assert (
        "the weights of 'all/encoders_a', the weights of 'a/encoders_a'" in capsys.readouterr().err
    )
