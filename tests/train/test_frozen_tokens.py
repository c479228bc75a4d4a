"""`Experiment.cache_frozen`: the same training, with tokens that are computed once."""

import chex
import flax.linen as nn
import jax
import optax
import pytest

from mmjax import balance
from mmjax.auxiliary import InfoNCE
from mmjax.data.augment import gaussian_noise
from mmjax.encoders import MLPEncoder, RecurrentEncoder, Wrap
from mmjax.pretrained import LoRA
from mmjax.sharing import TaskSpecific
from mmjax.train.best_variables import evaluate_best
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.loop import fit
from mmjax.train.programs import Programs

TRAINABLE = ("sharing/*", "heads_*", "encoders_vector/*")


class Normed(nn.Module):
    """A layer and a batch norm."""

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(momentum=0.8)(nn.Dense(5)(x))


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("stream", [False, True])
def test_results_are_the_same(toy, tmp_path, seeds, stream):
    devices = jax.devices()[: 2 if stream else 1]
    encoders = {"vector": Wrap(Normed()), "sequence": RecurrentEncoder(width=5)}
    experiments = [
        toy.experiment(
            model=toy.model().clone(encoders=encoders),
            trainable=("sharing/*", "heads_*"),
            optimizer=optax.sgd(0.1),
            balancer=balance.pcgrad(),
            modality_dropout=0.3,
            epochs=2,
            stream=stream,
            cache_frozen=cached,
        )
        for cached in (False, True)
    ]
    plain, cached = (
        fit(e, tmp_path / str(e.cache_frozen), seeds=seeds, devices=devices) for e in experiments
    )
    chex.assert_trees_all_close(
        cached.state.train.params, plain.state.train.params, rtol=1e-5, atol=1e-6
    )
    chex.assert_trees_all_equal(cached.frozen, plain.frozen)
    assert cached.flops < plain.flops
    for name, value in plain.test[0].items():
        assert cached.test[0][name] == pytest.approx(value, rel=1e-5, abs=1e-6)
    # A checkpoint does not depend on how it was made.
    assert evaluate_best(experiments[0], tmp_path / "True", seeds=seeds, devices=1)[
        0
    ] == pytest.approx(cached.test[0], rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_steps_have_the_tokens_of_the_frozen_encoder(toy):
    experiment = toy.experiment(trainable=TRAINABLE, cache_frozen=True)
    programs = Programs(experiment, (0,), jax.devices()[:1], checked=True)
    assert programs.cached == ["sequence"]
    assert "encoders_sequence" not in programs.constants[0]["params"]
    assert "encoders_sequence" in programs.initial.frozen["params"]
    _, _, batch, _ = programs.trace_step(programs.sweep)
    assert batch.inputs["sequence"]["values"].shape == (16, 1, 5)
    assert set(batch.lengths) == set()


@pytest.mark.slow
def test_what_is_not_the_same_in_every_step_is_refused(toy):
    def refuse(message, **options):
        with pytest.raises(ValueError, match=message):
            check_experiment(toy.experiment(cache_frozen=True, **options), 1)

    refuse("no encoder is frozen")
    lora = {"encoders_sequence/*kernel": LoRA(1)}
    refuse("no encoder is frozen", trainable=TRAINABLE, lora=lora)
    noise = {"sequence": gaussian_noise(0.1)}
    refuse(
        "augment changes the inputs of the frozen encoder 'sequence'",
        trainable=TRAINABLE,
        augment=noise,
    )
    encoders = {"vector": MLPEncoder((8,)), "sequence": RecurrentEncoder(width=5, dropout=0.1)}
    model = toy.model().clone(encoders=encoders)
    refuse("'sequence' draws random numbers", trainable=TRAINABLE, model=model)
    refuse(
        "auxiliary objective 'align'",
        trainable=TRAINABLE,
        model=toy.model(auxiliary={"align": InfoNCE()}),
    )
    check_experiment(toy.experiment(cache_frozen=True, trainable=TRAINABLE), 1)
    refuse("TaskSpecific copies", trainable=("heads_*",), model=toy.model(sharing=TaskSpecific()))
