import numpy as np
import pytest

from mmjax.data.builtin.pca import fit_components, project_onto_components

RNG = np.random.default_rng(0)
LATENT = RNG.normal(size=(500, 6)) * [40, 25, 15, 10, 6, 3]
IMAGES = np.clip(np.round(LATENT @ np.linalg.qr(RNG.normal(size=(30, 6)))[0].T + 128), 0, 255)
IMAGES = IMAGES.astype(np.uint8)


def energies(images):
    """The share of variance along each principal component, by singular values."""
    x = images.astype(np.float64)
    values = np.linalg.svd(x - x.mean(axis=0, keepdims=True), compute_uv=False) ** 2
    return values / values.sum()


@pytest.mark.parametrize("removed", [0.0, 0.05, 0.3, 0.5, 0.75, 0.99])
def test_the_fewest_components_that_hold_what_is_to_stay(removed):
    components = fit_components(IMAGES, removed)
    expected, kept = energies(IMAGES), len(components.energy)
    np.testing.assert_allclose(components.energy, expected[:kept], atol=1e-9)
    assert expected[:kept].sum() >= 1 - removed - 1e-9
    assert kept == 1 or expected[: kept - 1].sum() < 1 - removed
    gram = components.directions @ components.directions.T
    np.testing.assert_allclose(gram, np.eye(kept), atol=1e-9)


def test_what_is_left_is_the_projection_plus_the_mean():
    components = fit_components(IMAGES, 0.5)
    x, kept = IMAGES.astype(np.float64), len(components.energy)
    mean = x.mean(axis=0)
    np.testing.assert_allclose(components.mean, mean, rtol=1e-12)
    _, _, rows = np.linalg.svd(x - mean[None], full_matrices=False)
    expected = (x - mean[None]) @ rows[:kept].T @ rows[:kept] + mean[None]
    found = project_onto_components(IMAGES, components)
    assert found.dtype == np.uint8
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-6
    left = found.astype(np.float64).var(axis=0).sum() / x.var(axis=0).sum()
    assert abs(left - components.energy.sum()) < 0.01  # rounding adds a little


def test_nothing_removed_is_the_image_itself():
    np.testing.assert_array_equal(
        project_onto_components(IMAGES, fit_components(IMAGES, 0.0)), IMAGES
    )


def test_images_that_do_not_vary_stay():
    same = np.full((5, 4), 7, np.uint8)
    np.testing.assert_array_equal(project_onto_components(same, fit_components(same, 0.75)), same)
