"""The independent parts that an interaction's labels are made of: their tables and their draws."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmjax.data.builtin.information import (
    bayes_accuracy,
    flip_probability,
    marginals,
    mutual_information,
)

NAMES = "abc"


class Part(NamedTuple):
    """One interaction: a binary task and the bits that it writes. All parts are independent.

    Attributes:
      task: name of its task.
      members: the modalities, by number and ascending, that hold one bit of it each.
      patterns: what is equally likely before any flip: the label, then the bit of each member.
      bits: what all members together tell of the label, without noise.
    """

    task: str
    members: tuple[int, ...]
    patterns: Bool[np.ndarray, "p n"]
    bits: float


def make_parts(
    modalities: int,
    redundancy: float,
    uniqueness: float | Sequence[float],
    synergy: float,
    order: int,
) -> list[Part]:
    """The interactions that were asked for."""
    everyone = range(modalities)
    alone = [uniqueness] * modalities if isinstance(uniqueness, int | float) else list(uniqueness)
    if len(alone) != modalities:
        raise ValueError(
            f"uniqueness is {uniqueness}; give one number, or {modalities}, one a modality."
        )
    copies = np.array([[bit] * (1 + modalities) for bit in (False, True)])
    parts = [
        Part("redundancy", tuple(everyone), copies, redundancy),
        *(_parity("uniqueness", (m,), bits) for m, bits in zip(everyone, alone, strict=True)),
        *(_parity("synergy", ms, synergy) for ms in itertools.combinations(everyone, order)),
    ]
    for part in parts:
        if not 0 <= part.bits <= 1:
            raise ValueError(f"{part.task} is {part.bits}; give a number of bits from 0 to 1.")
    if not any(part.bits for part in parts):
        raise ValueError(
            "redundancy, uniqueness and synergy are all 0; give at least one of them more bits."
        )
    return [part for part in parts if part.bits]


def _parity(kind: str, members: tuple[int, ...], bits: float) -> Part:
    """The exclusive or of one bit a member: of one member, the bit itself."""
    held = np.array(list(itertools.product((False, True), repeat=len(members))))
    label = np.logical_xor.reduce(held, axis=1, keepdims=True)
    name = "".join(NAMES[m] for m in members)
    return Part(f"{kind}_{name}", members, np.hstack([label, held]), bits)


def _flips(part: Part, noise: float) -> Float[np.ndarray, " n"]:
    """The probabilities that the label and each member's bit are flipped."""
    return np.array([flip_probability(part.bits), *[noise] * len(part.members)])


def _table(part: Part, modalities: int, noise: float) -> Float[np.ndarray, "2 ..."]:
    """P(label, symbol of every modality); a modality that is no member has one symbol."""
    flips, joint = _flips(part, noise), np.zeros([2] * (1 + len(part.members)))
    for seen in np.ndindex(joint.shape):
        flipped = part.patterns != np.array(seen, bool)[None]
        joint[seen] = np.where(flipped, flips[None], 1 - flips[None]).prod(axis=1).mean()
    return joint.reshape([2, *(2 if m in part.members else 1 for m in range(modalities))])


def facts(parts: Sequence[Part], names: Sequence[str], noise: float) -> dict[str, Any]:
    """Bayes-optimal accuracy and mutual information of every task and subset of modalities.

    A binary task needs its own part's table only, since the parts are independent; for the same
    reason, the table of `mixed` is the Kronecker product of all. Computed in float64 and rounded to
    12 places, which hides its round-off.
    """
    joints = {part.task: _table(part, len(names), noise) for part in parts}
    joints["mixed"] = functools.reduce(np.kron, joints.values())
    tables = {task: marginals(joint, names) for task, joint in joints.items()}
    measures = {"bayes_accuracy": bayes_accuracy, "information_bits": mutual_information}
    return {
        name: {
            task: {subset: abs(round(measure(table), 12)) for subset, table in subsets.items()}
            for task, subsets in tables.items()
        }
        for name, measure in measures.items()
    }


def draw(
    part: Part, size: int, noise: float, rng: np.random.Generator
) -> tuple[Bool[np.ndarray, " {size}"], dict[int, Bool[np.ndarray, " {size}"]]]:
    """Labels, and the bits that each member holds, after the flips."""
    exact = part.patterns[rng.integers(len(part.patterns), size=size)]
    label, *held = (exact ^ (rng.random(exact.shape) < _flips(part, noise)[None])).T
    return label, dict(zip(part.members, held, strict=True))
