"""Optimizers per path against closed forms of SGD, under jit and for replicas at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.optim import per_path, scale_by_depth, unfreeze_at

PARAMS = {
    "encoders_a": {"embed": jnp.ones(2), "layers": {"w": jnp.ones((3, 2))}},
    "encoders_b": {"conv_0": jnp.ones(2), "conv_1": jnp.ones(2), "conv_10": jnp.ones(2)},
    "heads_x": {"bias": jnp.ones(2)},
}


def train(optimizer, steps):
    """Gradient 1 everywhere; one program for all steps."""

    def step(carry, _):
        params, state = carry
        gradient = jax.tree.map(jnp.ones_like, params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = PARAMS, optimizer.init(PARAMS)
    return jax.jit(lambda start: jax.lax.scan(step, start, None, steps)[0][0])(start)


def test_rates_and_weight_decay_per_path():
    decayed = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    params = train(
        per_path({"*/embed": optax.sgd(1.0), "encoders_*": decayed, "*": optax.sgd(0.01)}), 2
    )
    np.testing.assert_allclose(params["encoders_a"]["embed"], 1 - 2 * 1.0, rtol=1e-6)
    w = 1 - 0.1 * (1 + 0.5)
    w -= 0.1 * (1 + 0.5 * w)
    np.testing.assert_allclose(params["encoders_a"]["layers"]["w"], w, rtol=1e-6)
    np.testing.assert_allclose(params["heads_x"]["bias"], 1 - 2 * 0.01, rtol=1e-6)


def test_rates_by_depth():
    stacked = scale_by_depth(
        0.5, ["encoders_a/embed", "encoders_a/layers/*"], stacked=["encoders_a/layers/*"]
    )
    params = train(optax.chain(optax.sgd(0.1), stacked), 1)
    np.testing.assert_allclose(params["encoders_a"]["embed"], 1 - 0.1 / 8, rtol=1e-6)
    rows = 1 - 0.1 * np.array([0.25, 0.5, 1.0])
    np.testing.assert_allclose(params["encoders_a"]["layers"]["w"][:, 0], rows, rtol=1e-6)
    np.testing.assert_allclose(params["heads_x"]["bias"], 1 - 0.1, rtol=1e-6)
    numbered = scale_by_depth(0.5, ["encoders_b/conv_{layer}"])
    params = train(optax.chain(optax.sgd(0.1), numbered), 1)["encoders_b"]
    for name, layers_above in (("conv_10", 0), ("conv_1", 9), ("conv_0", 10)):
        np.testing.assert_allclose(params[name], 1 - 0.1 * 0.5**layers_above, rtol=1e-6)


def test_parameters_keep_their_values_until_they_are_unfrozen():
    optimizer = per_path({"encoders_*": unfreeze_at(3, optax.adam(0.1)), "*": optax.sgd(0.1)})
    assert jax.tree.all(
        jax.tree.map(
            lambda a, b: bool((a == b).all()),
            train(optimizer, 3)["encoders_a"],
            PARAMS["encoders_a"],
        )
    )
    # Adam's first update is the learning rate: its state starts when the parameters do.
    np.testing.assert_allclose(train(optimizer, 4)["encoders_a"]["embed"], 1 - 0.1, rtol=1e-5)
    np.testing.assert_allclose(train(optimizer, 4)["heads_x"]["bias"], 1 - 0.4, rtol=1e-5)


def test_losses_reach_the_transformations():
    """`make_train_step` passes the loss as `value`."""
    optimizer = per_path({"heads_*": optax.polyak_sgd(max_learning_rate=10.0), "*": optax.sgd(1.0)})
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS, value=jnp.array(3.0))
    np.testing.assert_allclose(updates["heads_x"]["bias"], -3 / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: per_path({}), "no transformations"),
        (lambda: per_path({"encoders_*": optax.sgd(1.0)}), "do not match the parameter heads_x"),
        (lambda: per_path({"*": optax.sgd(1.0), "x": optax.sgd(1.0)}), "'x' of per_path decides"),
        (lambda: scale_by_depth(0.0, ["*"]), "decay is 0.0"),
        (lambda: scale_by_depth(0.5, ["*"], stacked=["x"]), "'x', which is not one"),
        (lambda: scale_by_depth(0.5, ["x"]), "No trainable parameter matches 'x'"),
        (lambda: unfreeze_at(-1, optax.sgd(1.0)), "step is -1"),
    ],
)
def test_refuses_what_cannot_be(make, expected):
    with pytest.raises(ValueError, match=expected):
        train(make(), 1)
