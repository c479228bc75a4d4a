"""The recurrent encoder against loops in NumPy, one example and one time step after another."""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from mmjax.data.dataset import Modality
from mmjax.encoders import Cell, RecurrentEncoder, TextEncoder, elman, gru, lstm
from tests.tolerance import bound_difference

X = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
LENGTHS = np.array([5, 2, 3], np.int32)
APPLY = jax.jit(lambda encoder, *a: encoder.apply(*a, train=False), static_argnums=0)
WIDTH = 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def parts(p, x, h):
    """W x + b and U h + c, cut into gates."""
    gates = p["bias"].size // WIDTH
    recurrent = h @ p["recurrent_kernel"] + p.get("recurrent_bias", 0)
    return np.split(x @ p["kernel"] + p["bias"], gates), np.split(recurrent, gates)


def elman_step(p, x, h, c):
    (a,), (b,) = parts(p, x, h)
    return np.tanh(a + b), c


def relu_step(p, x, h, c):
    (a,), (b,) = parts(p, x, h)
    return np.maximum(a + b, 0), c


def gru_step(p, x, h, c):
    (r, z, n), (ur, uz, un) = parts(p, x, h)
    r, z = sigmoid(r + ur), sigmoid(z + uz)
    return (1 - z) * np.tanh(n + r * un) + z * h, c


def lstm_step(p, x, h, c):
    i, f, g, o = np.add(*parts(p, x, h))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def loop_direction(step, p, sequence, backward):
    """Outputs by time and the last one, for one sequence [time d] without padding."""
    h, c = np.zeros(WIDTH), np.zeros(WIDTH)
    times = range(len(sequence))
    outputs = np.zeros((len(sequence), WIDTH))
    for t in reversed(times) if backward else times:
        h, c = step(p, sequence[t], h, c)
        outputs[t] = h
    return outputs, h


def loop_encoder(step, params, x, lengths, output, layers, bidirectional):
    """The whole encoder: a list with one array [n d] an example."""
    directions = ("forward", "backward") if bidirectional else ("forward",)
    results = []
    for sequence, length in zip(x.astype(np.float64), lengths, strict=True):
        y = sequence[:length]
        for i in range(layers):
            layer = [
                loop_direction(step, params[f"layer_{i}_{name}"], y, name == "backward")
                for name in directions
            ]
            y = np.concatenate([outputs for outputs, _ in layer], axis=1)
            last = np.concatenate([h for _, h in layer])
        results.append({"last": last[None], "all": y, "mean": y.mean(axis=0)[None]}[output])
    return results


CELLS = {
    "elman": (elman(), elman_step),
    "elman-relu": (elman(jax.nn.relu), relu_step),
    "gru": (gru(), gru_step),
    "lstm": (lstm(), lstm_step),
}
CELL_CASES = pytest.mark.parametrize("cell, step", CELLS.values(), ids=CELLS)


def random_params(encoder, *inputs):
    """Parameters all away from their initial values."""
    rng = np.random.default_rng(0)
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype), shapes)


def float64(params):
    return jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"])


@CELL_CASES
@pytest.mark.parametrize(
    "output, layers, bidirectional", [("all", 2, True), ("last", 1, True), ("mean", 1, False)]
)
def test_forward_is_the_loop(cell, step, output, layers, bidirectional):
    encoder = RecurrentEncoder(cell, WIDTH, layers, bidirectional, output=output)
    params = random_params(encoder, X, LENGTHS)
    values, mask = APPLY(encoder, params, X, LENGTHS)
    expected = loop_encoder(step, float64(params), X, LENGTHS, output, layers, bidirectional)
    for i in range(3):
        np.testing.assert_allclose(values[i][mask[i]], expected[i], atol=1e-5)
        assert (values[i][~mask[i]] == 0).all()


@CELL_CASES
def test_gradient_is_a_finite_difference_of_the_loop(cell, step):
    encoder = RecurrentEncoder(cell, WIDTH, 2, True, output="all")
    params = random_params(encoder, X, LENGTHS)

    def loss(params, x):
        return jnp.square(APPLY(encoder, params, x, LENGTHS).values).sum()

    def loop_loss(params, x):
        results = loop_encoder(step, params, x, LENGTHS, "all", 2, True)
        return sum(np.square(y).sum() for y in results)

    def slope(direction, along_x, size=1e-6):
        ahead, behind = (
            loop_loss(jax.tree.map(lambda p, d, e=e: p + e * d, start, direction), X + e * along_x)
            for e in (size, -size)
        )
        return (ahead - behind) / (2 * size)

    gradient, of_x = jax.grad(loss, argnums=(0, 1))(params, X)
    start, rng = float64(params), np.random.default_rng(0)
    for _ in range(6):
        direction = jax.tree.map(lambda p: rng.normal(size=p.shape), start)
        along_x = rng.normal(size=X.shape)
        terms = jax.tree.map(lambda g, d: float((g * d).sum()), gradient["params"], direction)
        got = sum(jax.tree.leaves(terms)) + float((of_x * along_x).sum())
        np.testing.assert_allclose(got, slope(direction, along_x), rtol=1e-3, atol=1e-3)


def test_a_cell_of_ones_own():
    """An exponential moving average, whose closed form is known."""

    def step(carry, inputs, recurrent):
        (h,) = carry
        return (0.5 * h + 0.5 * inputs + 0 * recurrent,)

    encoder = RecurrentEncoder(Cell(bias=(0.0,), states=1, step=step), width=2)
    params = {
        "params": {
            "layer_0_forward": {
                "kernel": jnp.eye(2),
                "bias": jnp.zeros(2),
                "recurrent_kernel": jnp.eye(2),
            }
        }
    }
    got = APPLY(encoder, params, X, LENGTHS).values[:, 0]
    for i, n in enumerate(LENGTHS):
        weights = 0.5 ** np.arange(n, 0, -1)
        np.testing.assert_allclose(got[i], weights @ X[i, :n], atol=bound_difference(20))


def test_without_lengths_every_time_counts():
    encoder = RecurrentEncoder(gru(), WIDTH, output="all")
    params = random_params(encoder, X, LENGTHS)
    whole = APPLY(encoder, params, X, np.full(3, 5, np.int32))
    free = APPLY(encoder, params, X, None)
    np.testing.assert_array_equal(whole.values, free.values)
    assert free.mask.all()


def test_initial_parameters():
    encoder = RecurrentEncoder(lstm(), 32)
    x = jnp.zeros((1, 2, 100))
    layer = jax.jit(lambda: encoder.init(jax.random.key(0), x, train=False))()
    layer = layer["params"]["layer_0_forward"]
    np.testing.assert_array_equal(layer["bias"], np.repeat([0, 1, 0, 0], 32))
    for u in np.split(np.asarray(layer["recurrent_kernel"]), 4, axis=1):
        np.testing.assert_allclose(u @ u.T, np.eye(32), atol=1e-5)
    np.testing.assert_allclose(layer["kernel"].std(), 100**-0.5, rtol=0.05)
    gru_layer = jax.jit(
        lambda: RecurrentEncoder(gru(), 8).init(jax.random.key(0), x, train=False)
    )()
    assert (gru_layer["params"]["layer_0_forward"]["recurrent_bias"] == 0).all()


def test_text_is_its_embedding_encoded():
    tokens = np.random.default_rng(0).integers(0, 257, size=(3, 5))
    text = TextEncoder(embedding=2, encoder=RecurrentEncoder(gru(), WIDTH))
    params = random_params(text, tokens, LENGTHS)
    embedding = np.asarray(params["params"]["embed"]["embedding"])
    assert embedding.shape == (257, 2)
    inner = {"params": params["params"]["encoder"]}
    expected = APPLY(text.encoder, inner, embedding[tokens], LENGTHS)
    got = APPLY(text, params, tokens.astype(np.uint16), LENGTHS)
    np.testing.assert_allclose(got.values, expected.values, atol=bound_difference(50))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RecurrentEncoder(output="first"), "'first'; use 'last', 'all' or 'mean'"),
        (lambda: RecurrentEncoder(layers=0), "0 layers of width 64"),
        (lambda: RecurrentEncoder(width=0), "1 layers of width 0"),
        (lambda: RecurrentEncoder(cell=lstm), r"call it, as in lstm\(\)"),
        (
            lambda: run(RecurrentEncoder(), jnp.zeros((2, 5))),
            r"\[b time d\] but got shape \(2, 5\)",
        ),
        (lambda: run(TextEncoder(), jnp.zeros((2, 5))), "integer tokens"),
        (lambda: run(TextEncoder(), jnp.zeros((2, 5, 1), int)), "integer tokens"),
        (
            lambda: TextEncoder(3).check(Modality((5,), True, ("padding", "a", "b", "c")), "note"),
            "'note' has 4 different tokens, but its TextEncoder has vectors for 3; set vocabulary",
        ),
    ],
)
def test_what_cannot_work_is_refused(make, message, as_outside_tests):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def as_outside_tests():
    """Switches off the checking of types that pytest switches on: users run without it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def run(encoder, x):
    return encoder.init(jax.random.key(0), x, train=False)
