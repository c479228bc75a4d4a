"""Draws small random data sets, as the text that builds them and the raw test examples.

The test examples are kept as a user has them, before any preparation: they are the truth that
predictions and metrics are compared with.
"""

import csv
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SIZES = {"train": 70, "validation": 33, "test": 41}
CLASSES = 3
COLORS = ("red", "blue", "green", "gray")
WORDS = ("bad", "so so", "good", "great day")
SHAPES = {"vector": (5,), "image": (8, 8, 1), "sequence": (6, 3), "tokens": (6,)}
TOKENS = 9


class Task(NamedTuple):
    """The raw test labels of a task: its kind, the values and which examples have one."""

    kind: str
    values: np.ndarray
    labeled: np.ndarray

    @property
    def classes(self) -> int:
        """Number of classes, or of labels."""
        return 2 if self.kind == "binary" else CLASSES

    @property
    def has_one_class(self) -> bool:
        """Whether an example is of one of several classes without an order."""
        return self.kind in ("classification", "binary")


class Data(NamedTuple):
    """A random data set.

    Attributes:
      source: the text of the expression that builds it.
      modalities: {modality: kind}.
      tasks: {task: its test labels}.
      examples: {modality or column: raw test values}, as `Trained.predict` takes them; None for a
        built-in data set, whose labels are not known either.
      complete: whether every training example has the labels of all tasks.
    """

    source: str
    modalities: dict[str, str]
    tasks: dict[str, Task]
    examples: dict[str, Any] | None
    complete: bool


def draw_data(rng: random.Random, folder: Path) -> Data:
    """Draws a data set, and writes its files into a folder."""
    return rng.choice((draw_arrays, draw_arrays, draw_table, draw_interactions))(rng, folder)


def draw_present(rng: random.Random, count: int, names: list[str]) -> dict[str, np.ndarray]:
    """Draws which examples have which modality; every example keeps one."""
    rate, draws = rng.choice((0.0, 0.2, 0.5)), np.random.default_rng(rng.getrandbits(32))
    present = {name: draws.random(count) >= rate for name in names}
    absent = ~np.any(list(present.values()), axis=0)
    present[rng.choice(names)] |= absent
    return present


def draw_targets(draws: np.random.Generator, kind: str, hidden: np.ndarray) -> np.ndarray:
    """Computes noisy labels of a kind from the variable [n] that all modalities show."""
    noisy = hidden + 0.3 * draws.normal(size=len(hidden))
    ranks = np.clip(np.floor(noisy + 1.5), 0, CLASSES - 1).astype(np.int64)
    match kind:
        case "regression":
            return (50 + 20 * noisy).astype(np.float32)
        case "multilabel":
            return (noisy[:, None] > [-0.5, 0.0, 0.5]).astype(np.float32)
    return ranks


def draw_tasks(rng: random.Random, kinds: tuple[str, ...]) -> dict[str, str]:
    """Draws one to three tasks, by name."""
    return {f"task_{i}": rng.choice(kinds) for i in range(rng.choice((1, 2, 2, 3)))}


def draw_values(draws: np.random.Generator, kind: str, hidden: np.ndarray) -> np.ndarray:
    """Draws values of a modality that show the hidden variable [n]."""
    shape = SHAPES[kind]
    scales = draws.normal(size=shape)
    noise = draws.normal(size=(len(hidden), *shape))
    values = hidden.reshape(-1, *[1] * len(shape)) * scales + noise
    if kind == "tokens":
        return np.clip(np.floor(values + TOKENS / 2), 0, TOKENS - 1).astype(np.int32)
    return values.astype(np.float32)


def draw_arrays(rng: random.Random, folder: Path) -> Data:
    """Draws arrays of images, sequences and vectors, whose gaps are masks, and writes them."""
    draws = np.random.default_rng(rng.getrandbits(32))
    kinds = rng.sample(
        ("vector", "image", "sequence", "tokens", "vector"), rng.choice((1, 2, 2, 3))
    )
    modalities = {f"{kind}_{i}": kind for i, kind in enumerate(kinds)}
    tasks = draw_tasks(rng, ("classification", "regression", "multilabel", "ordinal"))
    drop = rng.choice((0.0, 0.0, 0.2, 0.4))
    raw: dict[str, Any] = {}
    labels: dict[str, Task] = {}
    for split, count in SIZES.items():
        hidden, arrays = draws.normal(size=count), {}
        for name, present in draw_present(rng, count, list(modalities)).items():
            x, lengths = draw_values(draws, modalities[name], hidden), draws.integers(2, 7, count)
            arrays |= {name: x, f"{name}_present": present}
            if modalities[name] in ("sequence", "tokens"):
                arrays[f"{name}_length"] = lengths
                rows = [x[i, : lengths[i]] for i in range(count)]
            else:
                rows = list(x)
            raw[name] = [row if seen else None for row, seen in zip(rows, present, strict=True)]
        for task, kind in tasks.items():
            values, labeled = draw_targets(draws, kind, hidden), draws.random(count) >= drop
            arrays |= {task: values, f"{task}_labeled": labeled}
            labels[task] = Task(kind, values, labeled)
        np.savez(folder / f"{split}.npz", **arrays)
    return Data(write_arrays_call(folder, modalities, tasks), modalities, labels, raw, drop == 0)


def write_arrays_call(folder: Path, modalities: dict[str, str], tasks: dict[str, str]) -> str:
    """Writes the call that reads the arrays."""
    lengths, ordinal = {}, []
    for name, kind in modalities.items():
        if kind in ("sequence", "tokens"):
            lengths[name] = f"{name}_length"
    for name, kind in tasks.items():
        if kind == "ordinal":
            ordinal.append(f"{name!r}: Task('ordinal', {tuple(map(str, range(CLASSES)))})")
    files = {split: str(folder / f"{split}.npz") for split in SIZES}
    present = {name: f"{name}_present" for name in modalities}
    labeled = {name: f"{name}_labeled" for name in tasks}
    return (
        f"data.from_arrays({files}, {tuple(modalities)}, {tuple(tasks)}, lengths={lengths}, "
        f"present={present}, labeled={labeled}, tasks={{{', '.join(ordinal)}}})"
    )


def draw_cells(draws: np.random.Generator, kind: str, hidden: np.ndarray) -> list[Any]:
    """Draws a column of numbers, categories or words that show the hidden variable [n]."""
    noisy = hidden + draws.normal(size=len(hidden)) / 2
    levels = np.clip(np.floor(noisy + 2), 0, 3).astype(int)
    match kind:
        case "vector":
            return [float(f"{value:.4f}") for value in noisy]
        case "category":
            return [COLORS[level] for level in levels]
    others = draws.integers(0, len(WORDS), len(hidden))
    return [f"{WORDS[i]} {WORDS[j]}" for i, j in zip(levels, others, strict=True)]


def draw_table(rng: random.Random, folder: Path) -> Data:
    """Draws a CSV file of numbers, categories and words with empty cells, and writes it."""
    draws = np.random.default_rng(rng.getrandbits(32))
    kinds = rng.sample(("vector", "category", "text"), rng.choice((1, 2, 3)))
    tasks = draw_tasks(rng, ("classification", "regression"))
    count, columns = sum(SIZES.values()), {}
    hidden, drop = draws.normal(size=count), rng.choice((0.0, 0.3))
    for name, present in draw_present(rng, count, kinds).items():
        for i in range(2 if name != "text" else 1):
            cells = draw_cells(draws, name, hidden)
            columns[f"{name}_{i}"] = [c if p else None for c, p in zip(cells, present, strict=True)]
    raw = {name: cells[-SIZES["test"] :] for name, cells in columns.items()}
    labels = {}
    for task, kind in tasks.items():
        values, labeled = draw_targets(draws, kind, hidden), draws.random(count) >= drop
        named = [f"class {v}" if kind == "classification" else f"{v:.3f}" for v in values]
        columns[task] = [v if seen else None for v, seen in zip(named, labeled, strict=True)]
        values = np.array([float(v) for v in named]) if kind == "regression" else values
        labels[task] = Task(kind, values[-SIZES["test"] :], labeled[-SIZES["test"] :])
    columns["split"] = [split for split, size in SIZES.items() for _ in range(size)]
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    forms = {
        "vector": "data.Numbers(('vector_0', 'vector_1'))",
        "category": "data.Category(('category_0', 'category_1'))",
        "text": f"data.Text('text_0', level='{rng.choice(('word', 'byte'))}')",
    }
    text = (
        f"data.from_table({str(folder / 'table.csv')!r}, "
        f"{{{', '.join(f'{k!r}: {forms[k]}' for k in kinds)}}}, { {t: t for t in tasks} }, "
        f"split='split', in_memory={rng.random() < 0.7})"
    )
    return Data(text, {kind: kind for kind in kinds}, labels, raw, drop == 0)


def draw_interactions(rng: random.Random, folder: Path) -> Data:
    """Draws the built-in data set, with modalities and labels removed in all splits."""
    kinds = [rng.choice(("vector", "sequence")) for _ in range(rng.choice((2, 3)))]
    sizes = ", ".join(f"{split}={size}" for split, size in SIZES.items())
    drop = rng.choice((0.0, 0.3))
    text = (
        f"missing.at_random(data.interactions(modalities={tuple(kinds)}, width=6, steps=5, "
        f"{sizes}, noise=0.1, uniqueness=0.0), modalities={rng.choice((0.0, 0.3))}, "
        f"labels={drop}, splits=('train', 'validation', 'test'))"
    )
    unknown = Task("binary", np.zeros(0), np.zeros(0))
    tasks = rng.sample(("redundancy", "synergy_ab"), rng.choice((1, 2)))
    modalities = dict(zip("abc", kinds, strict=False))
    return Data(text, modalities, dict.fromkeys(tasks, unknown), None, drop == 0)
