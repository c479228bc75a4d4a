"""The recurrent encoder against loops in NumPy, one example and one time step after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Cell, RecurrentEncoder, TextEncoder, elman, gru, lstm

X = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
LENGTHS = np.array([5, 2, 3], np.int32)
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


def random_params(encoder, seed=0):
    """Parameters with every bias away from its initial value."""
    rng = np.random.default_rng(seed)
    params = encoder.init(jax.random.key(seed), X, LENGTHS, train=False)
    return jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), params)


def float64(params):
    return jax.tree.map(lambda p: np.asarray(p, np.float64), params["params"])


@CELL_CASES
@pytest.mark.parametrize("output", ["last", "all", "mean"])
@pytest.mark.parametrize("layers, bidirectional", [(1, False), (1, True), (2, True)])
def test_forward_is_the_loop(cell, step, output, layers, bidirectional):
    encoder = RecurrentEncoder(cell, WIDTH, layers, bidirectional, output=output)
    params = random_params(encoder)
    values, mask = encoder.apply(params, X, LENGTHS, train=False)
    expected = loop_encoder(step, float64(params), X, LENGTHS, output, layers, bidirectional)
    for i in range(3):
        np.testing.assert_allclose(values[i][mask[i]], expected[i], atol=1e-5)
        assert (values[i][~mask[i]] == 0).all()


@CELL_CASES
def test_gradient_is_a_finite_difference_of_the_loop(cell, step):
    encoder = RecurrentEncoder(cell, WIDTH, 2, True, output="all")
    params = random_params(encoder)

    def loss(params, x):
        return jnp.square(encoder.apply(params, x, LENGTHS, train=False).values).sum()

    def loop_loss(params, x):
        results = loop_encoder(step, params, x, LENGTHS, "all", 2, True)
        return sum(np.square(y).sum() for y in results)

    gradient, of_x = jax.grad(loss, argnums=(0, 1))(params, X)
    start = float64(params)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        direction = jax.tree.map(lambda p: rng.normal(size=p.shape), start)
        along_x = rng.normal(size=X.shape)
        ends = [
            loop_loss(
                jax.tree.map(lambda p, d: p + e * d, start, direction),  # noqa: B023
                X + e * along_x,
            )
            for e in (1e-6, -1e-6)
        ]
        terms = jax.tree.map(lambda g, d: float((g * d).sum()), gradient["params"], direction)
        slope = sum(jax.tree.leaves(terms)) + float((of_x * along_x).sum())
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-3, atol=1e-3)


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
    got = encoder.apply(params, X, LENGTHS, train=False).values[:, 0]
    for i, n in enumerate(LENGTHS):
        weights = 0.5 ** np.arange(n, 0, -1)
        np.testing.assert_allclose(got[i], weights @ X[i, :n], atol=1e-6)


def test_without_lengths_every_time_counts():
    encoder = RecurrentEncoder(gru(), WIDTH, output="all")
    params = random_params(encoder)
    whole = encoder.apply(params, X, np.full(3, 5, np.int32), train=False)
    free = encoder.apply(params, X, None, train=False)
    np.testing.assert_array_equal(whole.values, free.values)
    assert free.mask.all()


def test_initial_parameters():
    encoder = RecurrentEncoder(lstm(), 32)
    x = jnp.zeros((1, 2, 100))
    layer = encoder.init(jax.random.key(0), x, train=False)["params"]["layer_0_forward"]
    np.testing.assert_array_equal(layer["bias"], np.repeat([0, 1, 0, 0], 32))
    for u in np.split(np.asarray(layer["recurrent_kernel"]), 4, axis=1):
        np.testing.assert_allclose(u @ u.T, np.eye(32), atol=1e-5)
    np.testing.assert_allclose(layer["kernel"].std(), 100**-0.5, rtol=0.05)
    gru_layer = RecurrentEncoder(gru(), 8).init(jax.random.key(0), x, train=False)
    assert (gru_layer["params"]["layer_0_forward"]["recurrent_bias"] == 0).all()


def test_text_is_its_embedding_encoded():
    tokens = np.random.default_rng(0).integers(0, 257, size=(3, 5))
    text = TextEncoder(embedding=2, encoder=RecurrentEncoder(gru(), WIDTH))
    params = text.init(jax.random.key(0), tokens, LENGTHS, train=False)
    embedding = np.asarray(params["params"]["embed"]["embedding"])
    assert embedding.shape == (257, 2)
    inner = {"params": params["params"]["encoder"]}
    expected = text.encoder.apply(inner, embedding[tokens], LENGTHS, train=False)
    got = text.apply(params, tokens.astype(np.uint16), LENGTHS, train=False)
    np.testing.assert_allclose(got.values, expected.values, atol=1e-6)


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
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def run(encoder, x):
    return encoder.init(jax.random.key(0), x, train=False)
