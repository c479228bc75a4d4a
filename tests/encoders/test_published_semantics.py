"""Blocks against arrays that PyTorch 2.13 computed in float64, rounded to six digits.

Its parameters were set to 0.6 sin(1.3 i + k + 1), where i counts the numbers of the k-th parameter
of the module, row after row; so they need no room here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import RecurrentEncoder, gru, lstm
from mmjax.kernels.attention import Attention, TransformerLayer
from mmjax.kernels.conv1d import conv1d
from mmjax.types import Tokens
from tests.tolerance import bound_difference

X = np.sin(0.7 * np.arange(12)).reshape(2, 3, 2)
QUERIES = np.sin(0.7 * np.arange(24)).reshape(2, 3, 4)
CONTEXT = np.cos(0.9 * np.arange(40)).reshape(2, 5, 4)
MASK = np.array([[True] * 5, [True, True, False, True, False]])

# torch.nn.LSTM(2, 3, batch_first=True, bidirectional=True)(x)[0], and GRU.
LSTM = [
    [-0.264525, 0.024444, 0.07709, 0.252752, -0.609711, -0.157065],
    [-0.433329, 0.069516, 0.052737, 0.242545, -0.588948, -0.126105],
    [-0.432987, 0.049832, 0.099016, 0.222825, -0.305052, -0.151991],
    [-0.01661, -0.060467, 0.136016, -0.044189, -0.213399, -0.298656],
    [-0.147991, -0.051881, 0.134664, 0.134307, -0.411981, -0.149662],
    [-0.389552, -0.011429, 0.061418, 0.183081, -0.487736, -0.007189],
]
GRU = [
    [-0.265056, 0.055436, 0.235714, 0.423486, -0.518748, -0.184535],
    [-0.477008, 0.216096, 0.243531, 0.635382, -0.520156, -0.095365],
    [-0.508279, 0.090037, 0.50903, 0.413382, -0.242689, -0.198092],
    [0.054033, -0.179131, 0.622058, -0.096742, -0.101319, -0.373543],
    [-0.11712, -0.185324, 0.48884, 0.128646, -0.332339, -0.162578],
    [-0.420624, 0.033326, 0.29286, 0.402788, -0.49622, 0.038797],
]
# torch.nn.MultiheadAttention(4, 2, bias=False, batch_first=True)(q, k, k, key_padding_mask=~mask)
ATTENTION = [
    [-0.269447, -0.59721, -0.290159, 0.325322],
    [-0.053351, 0.149718, 0.193641, 0.031731],
    [-0.043038, -0.326443, -0.26285, 0.080144],
    [0.445192, 1.223696, 0.701451, -0.566412],
    [0.56286, 0.491475, -0.102332, -0.587363],
    [0.437043, 1.096142, 0.590079, -0.543219],
]
# torch.nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, dropout=0, norm_first=True,
# layer_norm_eps=1e-6, batch_first=True) with tanh's GELU, attention biases 0.
LAYER = [
    [0.548917, 0.626341, 0.918237, 1.851039],
    [1.067681, -0.699869, -0.753682, 0.133429],
    [-0.05759, 0.043664, 0.515154, 2.013557],
    [1.688104, -0.083257, -0.369229, 0.213145],
    [-0.314953, -0.60375, -0.267197, 1.679782],
    [1.67692, 0.527145, 0.355728, 0.567935],
]
# torch.nn.functional.conv1d on x with 4 zeros before it, dilation 2, a kernel of shape [2, 2, 3].
CAUSAL = [
    [0.362566, 0.153352],
    [0.224165, -0.338089],
    [-0.318481, 0.11462],
    [-0.32151, 0.246891],
    [0.177072, 0.352207],
    [0.040719, -0.384221],
]


def sines(k, *shape):
    return 0.6 * np.sin(1.3 * np.arange(np.prod(shape)) + k + 1).reshape(shape)


def float32(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tree)


def close(got, expected):
    np.testing.assert_allclose(
        got.reshape(-1, got.shape[-1]), expected, atol=5e-7 + bound_difference(50)
    )


def direction(gates, k):
    first, second = sines(k + 2, 3 * gates), sines(k + 3, 3 * gates)
    kernels = {
        "kernel": sines(k, 3 * gates, 2).T,
        "recurrent_kernel": sines(k + 1, 3 * gates, 3).T,
    }
    if gates == 4:
        return {**kernels, "bias": first + second}
    return {**kernels, "bias": first, "recurrent_bias": second}


@pytest.mark.parametrize("cell, gates, expected", [(lstm(), 4, LSTM), (gru(), 3, GRU)])
def test_recurrent_cells(cell, gates, expected):
    encoder = RecurrentEncoder(cell, 3, bidirectional=True, output="all")
    params = {
        "layer_0_forward": direction(gates, 0),
        "layer_0_backward": direction(gates, 4),
    }
    got = encoder.apply({"params": float32(params)}, float32(X), train=False)
    close(got.values, expected)


def attention_params(out):
    q, k, v = (m.T.reshape(4, 2, 2) for m in np.split(sines(0, 12, 4), 3))
    kernels = {"query": q, "key": k, "value": v, "out": sines(out, 4, 4).T.reshape(2, 2, 4)}
    return {"heads": {name: {"kernel": kernel} for name, kernel in kernels.items()}}


def test_multi_head_attention():
    got = Attention(2).apply(
        {"params": float32(attention_params(1))},
        float32(QUERIES),
        Tokens(float32(CONTEXT), jnp.asarray(MASK)),
    )
    close(got, ATTENTION)


def test_pre_norm_transformer_layer():
    params = {
        "attention": attention_params(2),
        "mlp_in": {"kernel": sines(4, 8, 4).T, "bias": sines(5, 8)},
        "mlp_out": {"kernel": sines(6, 4, 8).T, "bias": sines(7, 4)},
        "norm_queries": {"scale": sines(8, 4), "bias": sines(9, 4)},
        "norm_mlp": {"scale": sines(10, 4), "bias": sines(11, 4)},
    }
    tokens = Tokens(float32(QUERIES), jnp.ones((2, 3), bool))
    close(
        TransformerLayer(2, expansion=2).apply({"params": float32(params)}, tokens, train=False)[0],
        LAYER,
    )


def test_dilated_causal_convolution():
    kernel = sines(0, 2, 2, 3).transpose(2, 1, 0)
    close(conv1d(float32(X), float32(kernel), (4, 0), dilation=2), CAUSAL)
