"""interactions: labels whose redundancy, uniqueness and synergy are chosen, and known exactly.

Every label is made from fair bits that are written into the modalities, so that the information of
any subset of modalities about it is a finite sum. The three kinds are those of partial information
decomposition (Williams and Beer 2010; in learning: Liang et al., "Quantifying & Modeling Multimodal
Interactions", NeurIPS 2023).

Tasks, one per interaction, all binary and balanced (Z are fair bits, ⊕ is exclusive or):

- `redundancy`: Z, of which every modality holds a copy;
- `uniqueness_a`, `uniqueness_b`, ...: Z, which only that modality holds;
- `synergy_ab`, ...: Z_a ⊕ Z_b, of which each modality holds its own term;
- `mixed`: all of them as one class, for example "0110", in the order above.

Labels are flipped at random with the probability at which the members carry exactly the chosen
number of bits. Without `noise`, the parts of `mixed` are then pure and independent, so that its
decomposition is the chosen one, by any measure that is additive over independent systems, such as
that of Bertschinger et al., "Quantifying unique information", Entropy 2014. With `noise`,
modalities hold independently flipped bits, and two copies carry more information than one:
redundancy is then no longer pure. In either case `facts` of the data set holds, as {task: {subset:
value}} with subsets "none", "a", "b", "a+b", ..., the exact `bayes_accuracy` and
`information_bits`.

Modalities `a`, `b` (and `c`) have `width` channels. In its own orthonormal basis (see
`make_basis`), a modality's leading coordinates are its bits, as -1 or 1; the others are uniform in
-1 to 1 and carry no information. A sequence, of random length between half of `steps` and all,
writes each bit at one random step. So all bits are linearly decodable from the sum over time, and
synergy needs a product: among sums of functions of single modalities, the minimum of cross-entropy
is 1 bit, at even odds everywhere, and accuracy is chance.

Each split is drawn by its own random stream, so that it shares no example with another and does not
depend on the size of another.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from mmjax.data.builtin.interaction_parts import (
    MODALITY_NAMES,
    Part,
    compute_facts,
    draw_labels_and_bits,
    make_parts,
)
from mmjax.data.dataset import Arrays, Dataset, Modality, Task
from mmjax.masks import make_length_mask
from mmjax.types import Batch


def interactions(
    *,
    modalities: tuple[str, ...] = ("vector", "sequence"),
    redundancy: float = 1.0,
    uniqueness: float | tuple[float, ...] = 1.0,
    synergy: float = 1.0,
    order: int = 2,
    noise: float = 0.0,
    width: int = 16,
    steps: int = 12,
    seed: int = 0,
    train: int = 16384,
    validation: int = 2048,
    test: int = 8192,
) -> Dataset:
    """Makes the data set in memory; the module describes tasks, labels and inputs.

    Args:
      modalities: "vector" or "sequence" for each of two or three modalities.
      redundancy: bits, from 0 to 1, that all modalities share; 0 omits the task, as of the others.
      uniqueness: bits that only one modality has, the same for each or one number per modality.
      synergy: bits of each exclusive or.
      order: number of modalities that an exclusive or joins: 2, every pair, or 3, all three.
      noise: probability that a modality holds a flipped bit.
      width: number of channels of every modality.
      steps: maximum length of a sequence.
      seed: random seed of the bases and of the examples.
      train: number of training examples.
      validation: number of validation examples.
      test: number of test examples.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> data = interactions(redundancy=1.0, uniqueness=0.0, synergy=1.0, train=64)
      >>> data.facts["bayes_accuracy"]["synergy_ab"]
      {'none': 0.5, 'a': 0.5, 'b': 0.5, 'a+b': 1.0}
    """
    sizes = {"train": train, "validation": validation, "test": test}
    _check_arguments(modalities, order, noise, {"steps": steps, **sizes}, seed)
    parts = make_parts(len(modalities), redundancy, uniqueness, synergy, order)
    _check_width(width, parts)
    sequence, vector = Modality((steps, width), sequence=True), Modality((width,))
    shapes = {}
    for name, kind in zip(MODALITY_NAMES, modalities, strict=False):
        shapes[name] = sequence if kind == "sequence" else vector
    splits = {}
    for stream, (split, size) in enumerate(sizes.items()):
        splits[split] = Arrays(_draw_batch(parts, shapes, size, noise, seed, stream))
    tasks = {part.task: Task("classification", ("0", "1")) for part in parts}
    classes = tuple("".join(bits) for bits in itertools.product("01", repeat=len(parts)))
    return Dataset(
        name="interactions",
        modalities=shapes,
        tasks={**tasks, "mixed": Task("classification", classes)},
        splits=splits,
        facts=compute_facts(parts, list(shapes), noise),
    )


def make_basis(seed: int, number: int, width: int) -> Float[np.ndarray, "width width"]:
    """Makes the orthonormal basis, in rows, of modality `number` (0 for `a`) from a seed.

    The sum over time of x @ basis[i] is 1 or -1, the bit of the i-th task that writes into the
    modality. These are `redundancy`, its own `uniqueness` and each `synergy` with its letter, in
    this order, as far as they are in the data set.

    Example:
      >>> rows = make_basis(seed=0, number=0, width=4)
      >>> bool(np.allclose(rows @ rows.T, np.eye(4)))
      True
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, number)))
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def _draw_batch(
    parts: Sequence[Part],
    shapes: dict[str, Modality],
    size: int,
    noise: float,
    seed: int,
    stream: int,
) -> Batch:
    """Draws one split."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream,)))
    drawn = [draw_labels_and_bits(part, size, noise, rng) for part in parts]
    labels = np.stack([label for label, _ in drawn], axis=1)
    targets = {part.task: labels[:, i] for i, part in enumerate(parts)}
    # The class of `mixed` is the binary number of its labels, the first one most significant.
    targets["mixed"] = labels @ (1 << np.arange(len(parts))[::-1])
    inputs: dict[str, np.ndarray] = {}
    lengths: dict[str, np.ndarray] = {}
    for number, (name, modality) in enumerate(shapes.items()):
        bits = np.array([held[number] for _, held in drawn if number in held], bool)
        steps = modality.shape[0] if modality.sequence else 1
        length = rng.integers((steps + 1) // 2, steps + 1, size, np.int32)
        axes = make_basis(seed, number, modality.shape[-1])
        frames = _write_bits(bits.reshape(-1, size).T, length, steps, axes, rng)
        inputs[name] = frames.reshape(size, *modality.shape)
        if modality.sequence:
            lengths[name] = length
    return Batch(
        inputs=inputs,
        present={name: np.ones(size, bool) for name in shapes},
        lengths=lengths,
        targets={task: target.astype(np.int32) for task, target in targets.items()},
        labeled={task: np.ones(size, bool) for task in targets},
    )


def _write_bits(
    bits: Bool[np.ndarray, "b k"],
    lengths: Int[np.ndarray, " b"],
    steps: int,
    axes: Float[np.ndarray, "w w"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "b {steps} w"]:
    """Writes each bit at one random step of its coordinate, and noise in the other coordinates."""
    size, count = bits.shape
    frames = rng.uniform(-1, 1, (size, steps, len(axes)))
    # The first `count` coordinates are the bits': 0 at all steps but one, where the bit is written.
    frames[:, :, :count] = 0
    step = rng.integers(lengths[:, None], size=(size, count))
    frames[np.arange(size)[:, None], step, np.arange(count)[None]] = np.where(bits, 1, -1)
    frames *= make_length_mask(lengths, steps)[:, :, None]
    return (frames @ axes).astype(np.float32)


def _check_arguments(
    modalities: Sequence[str], order: int, noise: float, counts: dict[str, int], seed: int
) -> None:
    if len(modalities) not in (2, 3) or not set(modalities) <= {"vector", "sequence"}:
        raise ValueError(
            f"modalities is {modalities!r}; give two or three, each 'vector' or 'sequence'."
        )
    if order not in range(2, len(modalities) + 1):
        raise ValueError(
            f"order is {order} with {len(modalities)} modalities; an exclusive or joins 2 of them, "
            "or 3 if there are three."
        )
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise is {noise}; it must be at least 0 and less than 0.5.")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be at least 1.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be at least 0.")


def _check_width(width: int, parts: Sequence[Part]) -> None:
    held = [m for part in parts for m in part.members]
    max_bits = max(map(held.count, held))
    if width < max_bits:
        raise ValueError(f"width is {width}; a modality holds {max_bits} bits, one per channel.")
