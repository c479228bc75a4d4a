"""The README's Python, run as it stands; the two set-up commands, found as CI finds them."""

import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.balance.pullback import of_jacobian
from mmjax.cli import script

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.M | re.S)


def test_there_are_two_set_up_commands_of_one_line_each():
    commands = blocks("sh setup")
    assert len(commands) == 2
    assert all(command.count("\n") == 1 for command in commands)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """One file with all the Python of the README."""
    path = tmp_path_factory.mktemp("readme") / "example.py"
    path.write_text("\n\n".join(blocks("python")))
    return path


def test_the_example_trains(example, tmp_path):
    """Three tones are told apart far better than by chance."""
    script(["run", str(example), "--workdir", str(tmp_path / "run")])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["all"]["seeds"]["0"]["test"]["kind/accuracy"] > 0.7


def test_the_example_balancer_gives_gradients_of_one_length(example):
    names = runpy.run_path(str(example))
    gram = np.array([[4.0, 1.0], [1.0, 9.0]])
    update = names["unit_gradients"]().update
    gradients = np.linalg.cholesky(gram)  # rows whose Gramian is the one above
    _, weights, _ = update(
        np.ones(2, np.float32),
        of_jacobian({"p": jnp.asarray(gradients, jnp.float32)}, {"p": True}),
        (),
        key=jax.random.key(0),
        labeled=np.ones(2, bool),
    )
    lengths = np.asarray(weights) * np.sqrt(np.diag(gram))
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
