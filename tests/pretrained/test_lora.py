"""LoRA: no effect at first, the gradients of its factors, and merged kernels at the end."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmjax
from mmjax import balance
from mmjax.pretrained import LoRA, merge_lora, weights
from mmjax.pretrained.lora import add_lora, find_kernels
from mmjax.train.best_variables import evaluate_best
from mmjax.train.checks.experiment_check import check_experiment
from mmjax.train.loop import fit
from mmjax.train.steps.state import init_frozen_variables, init_state
from mmjax.train.steps.train_step import make_train_step

KERNEL = "encoders_vector/Dense_0/kernel"


@pytest.mark.slow
def test_gradients_of_the_factors_follow_from_that_of_the_kernel(toy):
    """With kernel W + s A B and the gradient G of W, that of A is s G B', and that of B s A' G."""
    batch = jax.tree.map(jnp.asarray, toy.batch(16, 1))
    parts = toy.model(), optax.sgd(1.0), balance.equal()
    options = {"lora": {KERNEL: LoRA(2, alpha=6.0)}}
    state = init_state(*parts, batch, jax.random.key(3), **options)
    frozen = init_frozen_variables(toy.model(), batch, **options)
    plain = init_state(*parts, batch, jax.random.key(3))
    assert set(frozen["params"]["encoders_vector"]["Dense_0"]) == {"kernel", "kernel_lora_scale"}

    # All parameters but the kernel are the seed's own, and the update has no effect at first.
    dense = dict(plain.params["encoders_vector"]["Dense_0"])
    dense["kernel"] = frozen["params"]["encoders_vector"]["Dense_0"]["kernel"]
    plain = plain._replace(params=plain.params | {"encoders_vector": {"Dense_0": dense}})
    step = jax.jit(make_train_step(*parts))
    new, metrics = step(state, batch, frozen)
    obvious, other = step(plain, batch)
    chex.assert_trees_all_equal(metrics["loss"], other["loss"])

    rng = np.random.default_rng(0)
    factors = dict(state.params["encoders_vector"]["Dense_0"])
    a = np.asarray(factors["kernel_lora_a"], np.float64)
    b = rng.normal(size=(2, 8))
    factors["kernel_lora_b"] = jnp.asarray(b, jnp.float32)
    state = state._replace(params=state.params | {"encoders_vector": {"Dense_0": factors}})
    dense["kernel"] = jnp.asarray(np.asarray(dense["kernel"]) + 3 * a @ b, jnp.float32)
    plain = plain._replace(params=plain.params | {"encoders_vector": {"Dense_0": dense}})
    new, _ = step(state, batch, frozen)
    obvious, _ = step(plain, batch)
    gradient = np.asarray(dense["kernel"] - obvious.params["encoders_vector"]["Dense_0"]["kernel"])
    found = new.params["encoders_vector"]["Dense_0"]
    np.testing.assert_allclose(
        factors["kernel_lora_a"] - found["kernel_lora_a"], 3 * gradient @ b.T, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        factors["kernel_lora_b"] - found["kernel_lora_b"], 3 * a.T @ gradient, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        found["bias"], obvious.params["encoders_vector"]["Dense_0"]["bias"], rtol=1e-4, atol=1e-6
    )


def test_stacked_kernels_have_factors_each():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 5, 4)).astype(np.float32)
    params = add_lora({"layers": {"kernel": kernel}}, {"*": LoRA(2, alpha=1.0)}, jax.random.key(0))
    chex.assert_trees_all_equal(merge_lora(params)["layers"], {"kernel": jnp.asarray(kernel)})
    b = rng.normal(size=(3, 2, 4)).astype(np.float32)
    layers = dict(params["layers"]) | {"kernel_lora_b": b}
    merged = merge_lora({"layers": layers})["layers"]["kernel"]
    for i in range(3):
        wanted = kernel[i] + 0.5 * np.asarray(layers["kernel_lora_a"][i]) @ b[i]
        np.testing.assert_allclose(merged[i], wanted, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused(toy):
    for lora, message in (
        ({"encoders_vector/Dense/kernel": LoRA(2)}, f"no parameter. Did you mean {KERNEL}"),
        ({"encoders_vector/*": LoRA(2)}, r"bias of shape \(8,\); only kernels"),
        ({KERNEL: LoRA(6)}, r"rank 6 for .* of shape \(6, 8\); it must be less than 6"),
    ):
        with pytest.raises(ValueError, match=message):
            check_experiment(toy.experiment(lora=lora), 1)
    with pytest.raises(
        ValueError, match=r"\(3, 3, 1, 2\); no update is smaller.* leave this kernel"
    ):
        find_kernels({("conv", "kernel"): np.zeros((3, 3, 1, 2))}, {"conv/*": LoRA(1)})
    with pytest.raises(ValueError, match="at least 1"):
        LoRA(0)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_a_run_is_merged_when_it_is_loaded(toy, tmp_path, seeds_run, devices):
    lora = {"encoders_*/*kernel": LoRA(2, alpha=4.0)}
    experiment = toy.experiment(epochs=2, lora=lora, trainable=("heads_*", "sharing/*"))
    options = {"seeds": (0, 1), "devices": devices}
    whole = mmjax.run({"all": lambda: experiment}, workdir=tmp_path, **options)
    result = fit(experiment, tmp_path / "all", seeds=(0, 1), devices=jax.devices()[:devices])
    dense = result.state.best["params"]["encoders_vector"]["Dense_0"]
    assert set(dense) == {"kernel_lora_a", "kernel_lora_b"} and dense["kernel_lora_b"].any()
    kernel = result.frozen["params"]["encoders_vector"]["Dense_0"]["kernel"]
    assert kernel.shape == (6, 8)
    assert evaluate_best(experiment, tmp_path / "all", **options) == result.test
    trained = mmjax.load(tmp_path, "all", seed=1, experiment=experiment)
    assert set(trained.params["encoders_vector"]["Dense_0"]) == {"kernel", "bias"}
    wanted = kernel + 2 * np.asarray(dense["kernel_lora_a"][1]) @ dense["kernel_lora_b"][1]
    np.testing.assert_allclose(
        trained.params["encoders_vector"]["Dense_0"]["kernel"], wanted, rtol=1e-5, atol=1e-6
    )
    assert trained.evaluate(experiment.data)["loss"] == pytest.approx(
        whole["all"]["seeds"]["1"]["test"]["loss"], rel=1e-5
    )
    start = weights(tmp_path / "all", prefix="encoders_vector/Dense_0/", seed=1)
    loaded = start.apply({"kernel": np.zeros((6, 8), "f"), "bias": np.zeros(8, "f")})
    np.testing.assert_allclose(loaded["kernel"], wanted, rtol=1e-5, atol=1e-6)
