"""Names and layouts of PyTorch: layers, recurrent networks, resized positions, the conversion."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import RecurrentEncoder
from mmjax.pretrained import weights
from mmjax.pretrained.positions import resize_positions
from mmjax.pretrained.renaming import recurrent_names

pytestmark = pytest.mark.reference


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lstm(bidirectional, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
    save_file(lstm.state_dict(), tmp_path / "x.safetensors")
    encoder = RecurrentEncoder(width=5, layers=2, bidirectional=bidirectional, output="all")
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    params = encoder.init(jax.random.key(0), x, train=False)["params"]
    params = weights(tmp_path / "x.safetensors", recurrent_names()).apply(params)
    tokens = encoder.apply({"params": params}, x, train=False)
    expected = lstm(torch.tensor(np.asarray(x)))[0].detach().numpy()
    np.testing.assert_allclose(tokens.values, expected, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(14, 16), (16, 7), (3, 3)])
def test_resized_positions(old, new):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(0).normal(size=(1, 1 + old * old, 4))
    grid = torch.tensor(table[:, 1:]).reshape(1, old, old, 4).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(new, new), mode="bicubic")
    resized = resize_positions(table, 1 + new * new, "2d")
    np.testing.assert_array_equal(resized[:, 0], table[:, 0])
    expected = grid.permute(0, 2, 3, 1).reshape(1, new * new, 4).numpy()
    np.testing.assert_allclose(resized[:, 1:], expected, atol=1e-12)
    line = torch.nn.functional.interpolate(
        torch.tensor(table).permute(0, 2, 1), size=new, mode="linear"
    )
    expected = line.permute(0, 2, 1).numpy()
    np.testing.assert_allclose(resize_positions(table, new, "1d"), expected, atol=1e-12)


def test_the_command_that_an_error_shows_converts_a_pickle(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pth"
    torch.save({"x": torch.arange(3.0), "y": torch.ones(2, 2).T}, path)
    with pytest.raises(ValueError, match="Convert it once") as error:
        weights(path)
    command = str(error.value).partition("PyTorch: python ")[2]
    subprocess.run(
        f"{sys.executable} {command}", shell=True, check=True, capture_output=True, timeout=120
    )
    tree = {"x": np.zeros(3, np.float32), "y": np.zeros((2, 2), np.float32)}
    loaded = weights(path.with_suffix(".safetensors")).apply(tree)
    assert jnp.array_equal(loaded["x"], jnp.arange(3.0))
