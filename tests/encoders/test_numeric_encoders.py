"""Encodings of numbers against the formulas of Gorishniy et al. 2022, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import Features, PeriodicEncoder, PiecewiseLinearEncoder, compute_bin_edges
from mmjax.encoders.piecewise_linear import encode_piecewise_linearly


def encode_by_definition(x, edges):
    """Equation 1 of the paper, for one number."""
    bins = len(edges) - 1
    encoded = []
    for t in range(1, bins + 1):
        low, high = edges[t - 1], edges[t]
        if x < low and t > 1:
            encoded.append(0.0)
        elif x >= high and t < bins:
            encoded.append(1.0)
        else:
            encoded.append((x - low) / (high - low))
    return encoded


def test_bins_are_passed_as_the_paper_defines():
    edges = ((-2.0, -0.5, 0.1, 3.0), (0.0, 1.0))
    x = np.random.default_rng(0).normal(scale=2, size=(200, 2))
    x[0], x[1] = [-0.5, 1.0], [3.0, 0.0]  # on the edges
    got = np.asarray(encode_piecewise_linearly(jnp.asarray(x, jnp.float32), edges))
    for row, (a, b) in enumerate(x.tolist()):
        np.testing.assert_allclose(got[row, 0], encode_by_definition(a, edges[0]), atol=1e-5)
        np.testing.assert_allclose(
            got[row, 1], [*encode_by_definition(b, edges[1]), 0, 0], atol=1e-5
        )


def test_edges_are_quantiles_without_repetitions():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=1000), rng.integers(0, 3, 1000), np.full(1000, 7.0)], axis=1)
    normal, counts, constant = compute_bin_edges(x, bins=8)
    np.testing.assert_allclose(normal, np.quantile(x[:, 0], np.linspace(0, 1, 9)))
    assert counts == (0.0, 1.0, 2.0) and constant == (7.0, 8.0)
    with pytest.raises(ValueError, match="give examples"):
        compute_bin_edges(x[:0], 4)


def test_waves_have_the_frequencies_of_their_feature():
    encoder = PeriodicEncoder(frequencies=3, scale=1.0, width=2, encoder=Features())
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    params = encoder.init(jax.random.key(0), x, train=False)["params"]
    got = encoder.apply({"params": params}, x, train=False).values
    c, kernel = (
        np.asarray(v, np.float64) for v in (params["frequencies"], params["embed"]["kernel"])
    )
    assert 0.3 < c.std() < 3 and kernel.shape == (4, 6, 2)
    angle = 2 * np.pi * np.asarray(x, np.float64)[:, :, None] * c[None]
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=2)
    expected = np.maximum(np.einsum("bdk,dko->bdo", waves, kernel), 0)
    # An angle of up to 40 is rounded three times, to 40 * 2^-24 each; a sum has six such waves.
    error = 6 * 3 * np.abs(angle).max() * 2.0**-24 * np.abs(kernel).max()
    assert error < 1e-3
    np.testing.assert_allclose(got, expected, atol=error)


def test_edges_are_needed_and_of_as_many_features():
    encoder = PiecewiseLinearEncoder(edges=((0.0, 1.0),))
    for wrong, x in ((encoder, jnp.zeros((2, 3))), (PiecewiseLinearEncoder(), jnp.zeros((2, 1)))):
        with pytest.raises(ValueError, match=r"features but got|edges=compute_bin_edges"):
            wrong.init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match=r"needs vectors of numbers \[b d\]"):
        encoder.init(jax.random.key(0), jnp.zeros((2, 3, 1)), train=False)
