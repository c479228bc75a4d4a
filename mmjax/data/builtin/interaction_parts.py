"""The independent parts that make up the labels of `interactions`: their tables and their draws."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmjax.data.builtin.information import (
    bayes_accuracy,
    compute_marginals,
    flip_probability,
    mutual_information,
)

MODALITY_NAMES = "abc"


class Part(NamedTuple):
    """One interaction: a binary task and the bits that it writes. All parts are independent.

    Attributes:
      task: name of its task.
      members: numbers of the modalities that hold one bit of it each, ascending.
      patterns: rows of (label, bit of each member), equally likely before any flip.
      bits: information of all members together about the label, without noise.
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
    """Makes the parts that have any bits, in the order redundancy, uniqueness, synergy.

    Args:
      modalities: number of modalities.
      redundancy: bits, from 0 to 1, that all modalities share.
      uniqueness: bits that only one modality has, the same for each or one number per modality.
      synergy: bits of each exclusive or.
      order: number of modalities that an exclusive or joins.

    Example:
      >>> [part.task for part in make_parts(2, 1.0, 0.0, 0.5, order=2)]
      ['redundancy', 'synergy_ab']
    """
    everyone = range(modalities)
    unique = [uniqueness] * modalities if isinstance(uniqueness, int | float) else list(uniqueness)
    if len(unique) != modalities:
        raise ValueError(
            f"uniqueness is {uniqueness}; give one number, or {modalities}, one per modality."
        )
    copies = np.array([[bit] * (1 + modalities) for bit in (False, True)])
    parts = [
        Part("redundancy", tuple(everyone), copies, redundancy),
        *(
            _make_parity_part("uniqueness", (m,), bits)
            for m, bits in zip(everyone, unique, strict=True)
        ),
        *(
            _make_parity_part("synergy", ms, synergy)
            for ms in itertools.combinations(everyone, order)
        ),
    ]
    for part in parts:
        if not 0 <= part.bits <= 1:
            raise ValueError(f"{part.task} is {part.bits}; give a number of bits from 0 to 1.")
    if not any(part.bits for part in parts):
        raise ValueError(
            "redundancy, uniqueness and synergy are all 0; give at least one of them more bits."
        )
    return [part for part in parts if part.bits]


def _make_parity_part(kind: str, members: tuple[int, ...], bits: float) -> Part:
    """Makes the part whose label is the exclusive or of one bit per member."""
    held = np.array(list(itertools.product((False, True), repeat=len(members))))
    # The exclusive or of one bit is that bit: uniqueness is the parity of a single member.
    label = np.logical_xor.reduce(held, axis=1, keepdims=True)
    name = "".join(MODALITY_NAMES[m] for m in members)
    return Part(f"{kind}_{name}", members, np.hstack([label, held]), bits)


def _compute_flip_probabilities(part: Part, noise: float) -> Float[np.ndarray, " n"]:
    """Computes the probabilities that the label and each member's bit are flipped."""
    return np.array([flip_probability(part.bits), *[noise] * len(part.members)])


def _compute_joint_table(part: Part, modalities: int, noise: float) -> Float[np.ndarray, "2 ..."]:
    """Computes P(label, symbol of every modality); a modality that is not a member has one."""
    flips, joint = _compute_flip_probabilities(part, noise), np.zeros([2] * (1 + len(part.members)))
    for outcome in np.ndindex(joint.shape):
        flipped = part.patterns != np.array(outcome, bool)[None]
        # The patterns are equally likely, and each of their bits is flipped independently.
        joint[outcome] = np.where(flipped, flips[None], 1 - flips[None]).prod(axis=1).mean()
    return joint.reshape([2, *(2 if m in part.members else 1 for m in range(modalities))])


def compute_facts(parts: Sequence[Part], names: Sequence[str], noise: float) -> dict[str, Any]:
    """Computes Bayes-optimal accuracy and mutual information per task and subset of modalities.

    A binary task needs only the table of its own part, since the parts are independent; for the
    same reason, the table of `mixed` is the Kronecker product of all. Computed in float64 and
    rounded to 12 decimals, which hides rounding errors.
    """
    joints = {part.task: _compute_joint_table(part, len(names), noise) for part in parts}
    # The parts are independent, so that their joint probabilities multiply.
    joints["mixed"] = functools.reduce(np.kron, joints.values())
    tables = {task: compute_marginals(joint, names) for task, joint in joints.items()}
    measures = {"bayes_accuracy": bayes_accuracy, "information_bits": mutual_information}
    facts: dict[str, Any] = {name: {} for name in measures}
    for (name, measure), (task, subsets) in itertools.product(measures.items(), tables.items()):
        # `abs` turns -0.0 into 0.0.
        facts[name][task] = {s: abs(round(measure(table), 12)) for s, table in subsets.items()}
    return facts


def draw_labels_and_bits(
    part: Part, size: int, noise: float, rng: np.random.Generator
) -> tuple[Bool[np.ndarray, " {size}"], dict[int, Bool[np.ndarray, " {size}"]]]:
    """Draws labels and the bits that each member holds, after the flips."""
    exact = part.patterns[rng.integers(len(part.patterns), size=size)]
    label, *held = (
        exact ^ (rng.random(exact.shape) < _compute_flip_probabilities(part, noise)[None])
    ).T
    return label, dict(zip(part.members, held, strict=True))
