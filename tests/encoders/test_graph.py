import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.dataset import Modality
from mmjax.encoders import GraphEncoder
from tests.tolerance import bound_difference

RNG = np.random.default_rng(0)
NODES = RNG.normal(size=(3, 5, 3)).astype(np.float32)
EDGES = RNG.integers(0, 3, (3, 7, 2)).astype(np.int32)
LENGTHS = {"nodes": np.array([3, 5, 4], np.int32), "edges": np.array([4, 7, 0], np.int32)}


def relu(x):
    return np.maximum(x, 0)


def loop_over_edges(params, nodes, edges, widths):
    """The network on one graph without padding, in float64."""
    h = nodes.astype(np.float64)
    for i in range(len(widths)):
        total = (1 + np.float64(params[f"epsilon_{i}"])) * h
        for source, target in edges:
            total[target] += h[source]
        for layer in ("hidden", "output"):
            kernel, bias = (np.float64(params[f"{layer}_{i}"][n]) for n in ("kernel", "bias"))
            total = relu(total @ kernel + bias[None])
        h = total
    return h


@pytest.fixture(scope="module")
def network():
    encoder = GraphEncoder((6, 4), pool=None)
    init = functools.partial(encoder.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), {"nodes": NODES, "edges": EDGES})
    params = jax.tree.map(lambda p: RNG.normal(size=p.shape).astype(np.float32), shapes)
    return encoder, params


def apply(encoder, params, nodes, edges, lengths, train=False):
    x = {"nodes": jnp.asarray(nodes), "edges": jnp.asarray(edges)}
    return encoder.apply(params, x, jax.tree.map(jnp.asarray, lengths), train=train)


@pytest.mark.parametrize("pool", [None, "sum", "mean"])
def test_the_network_is_that_of_a_loop_over_edges(network, pool):
    encoder, params = network
    values, mask = apply(encoder.copy(pool=pool), params, NODES, EDGES, LENGTHS)
    for i, (n, e) in enumerate(zip(LENGTHS["nodes"], LENGTHS["edges"], strict=True)):
        expected = loop_over_edges(params["params"], NODES[i, :n], EDGES[i, :e], encoder.widths)
        if pool:
            expected = expected.sum(axis=0) / (n if pool == "mean" else 1)
        got = values[i, :n] if pool is None else values[i, 0]
        atol = bound_difference(100) * np.abs(expected).max()
        np.testing.assert_allclose(got, expected, atol=atol)
    assert mask.sum(axis=1).tolist() == ([3, 5, 4] if pool is None else [1, 1, 1])


def test_padding_has_no_effect_on_values_and_gradients(network):
    encoder, params = network

    def loss(params, nodes, edges):
        return (apply(encoder.copy(pool="sum"), params, nodes, edges, LENGTHS).values ** 2).sum()

    nodes, edges = NODES.copy(), EDGES.copy()
    for i, (n, e) in enumerate(zip(LENGTHS["nodes"], LENGTHS["edges"], strict=True)):
        nodes[i, n:], edges[i, e:] = np.nan, 99
    grad = jax.jit(jax.value_and_grad(loss))
    clean, garbage = grad(params, NODES, EDGES), grad(params, nodes, edges)
    jax.tree.map(np.testing.assert_array_equal, clean, garbage)


def test_the_order_of_the_nodes_has_no_effect(network):
    encoder, params = network
    order = np.array([2, 0, 1])
    renamed = np.argsort(order)[EDGES[:1, :4]]
    lengths = {"nodes": np.array([3]), "edges": np.array([4])}
    pooled = encoder.copy(pool="sum")
    a = apply(pooled, params, NODES[:1, :3], EDGES[:1, :4], lengths).values
    b = apply(pooled, params, NODES[:1, order], renamed, lengths).values
    np.testing.assert_allclose(a, b, atol=bound_difference(100) * np.abs(a).max())


def test_dropout_is_active_in_training_only(network):
    encoder, params = network
    drop = encoder.copy(dropout=0.5)
    x = {"nodes": jnp.asarray(NODES), "edges": jnp.asarray(EDGES)}
    seeds = [drop.apply(params, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in (0, 1)]
    assert jnp.abs(seeds[0].values - seeds[1].values).max() > 1e-3
    calm = drop.apply(params, x, train=False).values
    np.testing.assert_array_equal(calm, encoder.apply(params, x, train=False).values)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GraphEncoder(()), "widths is empty"),
        (lambda: GraphEncoder().check(Modality((3,)), "atoms"), "needs 'nodes' .* group two"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
