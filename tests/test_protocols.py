"""Every public part has the calls that its protocol promises."""

import inspect
from collections.abc import Callable

import pytest

from mmjax import auxiliary, encoders, fusion, heads, sharing
from mmjax.pretrained import backbones
from mmjax.protocols import Encoder, Fusion, Head, Objective, Sharing

BACKBONES = {name for name in backbones.__all__ if isinstance(getattr(backbones, name), type)}
# The names of each package that are not parts.
OTHERS = {
    Encoder: (encoders, {"Cell", "compute_bin_edges", "elman", "gru", "lstm"}),
    Fusion: (fusion, {"pool"}),
    Sharing: (sharing, {"Copies", "copied"}),
    Head: (heads, {"Better", "EffectiveNumber", "Loss"}),
    Objective: (auxiliary, {"Decoders", "MLPDecoder", "Teacher"}),
}
PARTS = [
    pytest.param(protocol, getattr(package, name), id=name)
    for protocol, (package, others) in OTHERS.items()
    for name in sorted(set(package.__all__) - others)
    if not (protocol is Objective and name.islower())  # formulas
] + [pytest.param(Encoder, getattr(backbones, name), id=name) for name in sorted(BACKBONES)]


def parameters(method: Callable[..., object]) -> list[tuple[str, object]]:
    return [(p.name, p.kind) for p in inspect.signature(method).parameters.values()]


@pytest.mark.parametrize("protocol, part", PARTS)
def test_a_part_has_the_members_and_parameters_of_its_protocol(protocol, part):
    members = [name for name in vars(protocol) if name == "__call__" or not name.startswith("_")]
    for name in members:
        assert hasattr(part, name), name
        promised = inspect.getattr_static(protocol, name)
        if inspect.isfunction(promised):
            assert parameters(getattr(part, name)) == parameters(promised), name
