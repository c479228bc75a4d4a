"""Shapes with a symbolic number of examples are not checked as those of integers."""

import jaxtyping
import pytest


@pytest.fixture(autouse=True, scope="module")
def _unchecked_types():
    """Turns the types off: beartype tests entries of `Sequence[int]` that it draws at random."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
