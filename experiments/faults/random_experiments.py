"""Draws small random experiments, as the text of an experiment file and the raw test examples.

A draw combines the parts of mmjax freely; whether they fit is left to the checks of `mmjax run`.
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

SEQUENCE_ENCODERS = (
    "encoders.RecurrentEncoder(encoders.gru(), 4)",
    "encoders.RecurrentEncoder(encoders.elman(), 3, bidirectional=True, output='mean')",
    "encoders.RecurrentEncoder(encoders.lstm(), 4, layers=2, output='all')",
    "encoders.Conv1dEncoder((4,), 3, dropout=0.2)",
    "encoders.Conv1dEncoder((4,), 3, output='all')",
    "encoders.TemporalConvEncoder((4, 4), 2)",
    "encoders.TransformerEncoder(4, 1, 2)",
    "encoders.TransformerEncoder(4, 1, 2, output='all')",
    "encoders.DeepSetsEncoder((4,), (4,))",
)
ENCODERS = {
    "vector": (
        "encoders.MLPEncoder((4,))",
        "encoders.MLPEncoder((5, 4), dropout=0.2)",
        "encoders.MaxoutEncoder((4,))",
        "encoders.Features()",
        "encoders.PeriodicEncoder(3, width=2, encoder=encoders.MLPEncoder((4,)))",
        "encoders.PiecewiseLinearEncoder(4, width=2, encoder=encoders.MLPEncoder((4,)))",
    ),
    "image": (
        "encoders.ConvEncoder((2, 3))",
        "encoders.ConvEncoder((4,), norm=True)",
        "encoders.ResidualEncoder((2, 4))",
        "encoders.ResidualEncoder((4,), output='all')",
        "encoders.TransformerEncoder(4, 1, 2, patch=(4, 4), output='class')",
        "encoders.MLPEncoder((4,))",
    ),
    "sequence": SEQUENCE_ENCODERS,
    "text": tuple(
        f"encoders.TextEncoder(embedding=3, encoder={e})" for e in SEQUENCE_ENCODERS[:-1]
    ),
    "category": (
        "encoders.TextEncoder(embedding=3, encoder=encoders.Features())",
        "encoders.TextEncoder(embedding=3, encoder=encoders.MLPEncoder((4,)))",
    ),
}
FUSIONS = """
Concat() Sum(4) Mean(4) Max(4) Gated(4) FiLM(4) Tensor(2) LowRankTensor(4,rank=2) Multiplicative(4)
Multiplicative(4,"scalar") AttentionPool(4,heads=2) EarlyTransformer(4,1,heads=2)
CrossModal(4,layers=1,heads=2) Bottleneck(4,bottlenecks=2,layers=1,heads=2)
Perceiver(4,latents=2,heads=2) HEALNet(4,latents=2,layers=1,heads=2) Embrace(4)
ProductOfExperts(4) Late(4) Late(4,learned=True) Late(4,joint=True) ShaSpec(4) MultiModN(4)
Prompted(4,prompts=2,layers=1,heads=2) PatternExperts(4,heads=2) ActionMAE(4,heads=2)
Hide(fusion.Mean(4))
"""
SHARINGS = """
HardSharing() HardSharing((4,)) HardSharing((4,),dropout=0.2) TaskSpecific((4,)) CrossStitch((4,))
CrossStitch((4,),backbones=True) TaskSpecific() MMoE(2,(4,)) MMoE(2,backbones=True) CGC(1,1,(4,))
CGC(1,1,backbones=True) PLE(2,1,1,(4,)) DSelectK(4,2,(4,)) DSelectK(2,2,backbones=True) MTAN((4,))
LTB(2,(4,)) LTB(2,(4,),backbones=True)
"""
BALANCERS = """
aligned() cagrad() conflict_free() cosmos() db_mtl() dualproj() dwa(steps=2) equal() excess_mtl()
fairgrad() famo() geometric() graddrop() gradnorm() gradvac() imtl_g() imtl_l() krum()
log_stch(warmup=1) mgda() moco() modo() nash() nash(every=2) pbi() pcgrad() rlw() scale_invariant()
sdmgrad() stch() trimmed_mean() uncertainty() upgrad() upgrad(wrt="features") mgda(wrt="features")
pcgrad(wrt="features",weigh_heads=True) cagrad(rescale=True)
"""
OPTIMIZERS = (
    "optax.sgd(0.05)",
    "optax.sgd(0.05, momentum=0.9)",
    "optax.adam(1e-2)",
    "optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))",
    "optax.lamb(1e-2)",
    "optax.adafactor(1e-2)",
    "optax.contrib.muon(1e-2)",
    "optax.contrib.schedule_free_adamw(1e-2)",
    "optax.adam(optax.cosine_decay_schedule(1e-2, 12))",
    "optax.MultiSteps(optax.sgd(0.05), 2)",
)
HEADS = {
    "classification": (
        "heads.Classification({c})",
        "heads.Classification({c}, hidden=(4,), extra_metrics={{'auroc': metrics.auroc}})",
        "heads.Classification({c}, class_weights='balanced')",
        "heads.Classification({c}, loss=functools.partial(losses.focal, gamma=2.0))",
        "heads.CosineClassification({c})",
        "heads.Evidential({c})",
        "heads.EnergyWeighted({c})",
    ),
    "regression": (
        "heads.Regression()",
        "heads.Regression(hidden=(4,), extra_metrics={{'spearman': metrics.spearman}})",
        "heads.Regression(loss=losses.huber)",
    ),
    "multilabel": ("heads.MultiLabel({c})", "heads.MultiLabel({c}, positive_weights='balanced')"),
    "ordinal": ("heads.Ordinal({c})", "heads.Ordinal({c}, loss=losses.coral)"),
}
# Parts whose random draws depend on how a batch is divided.
RANDOM_PARTS = ("dropout=0", "Embrace", "ProductOfExperts", "ActionMAE", "Hide", "MultiModN(")


class Task(NamedTuple):
    """The raw test labels of a task: its kind, the values and which examples have one."""

    kind: str
    values: np.ndarray
    labeled: np.ndarray


class Draw(NamedTuple):
    """A random experiment.

    Attributes:
      source: the text of its file.
      examples: {modality or column: raw test values}, as `Trained.predict` takes them.
      tasks: {task: its test labels}; empty if `examples` is None.
      modalities: {modality: kind}.
    """

    source: str
    examples: dict[str, Any] | None
    tasks: dict[str, Task]
    modalities: dict[str, str]


def draw_experiment(rng: random.Random, folder: Path) -> Draw:
    """Draws an experiment, and writes its data into a folder."""
    origin = rng.choice(("arrays", "arrays", "table", "interactions"))
    draw_data = {"arrays": draw_arrays, "table": draw_table, "interactions": draw_interactions}
    data, modalities, tasks, examples = draw_data[origin](rng, folder)
    model = draw_model(rng, modalities, tasks)
    fields = {"data": data, "model": model, **draw_options(rng, modalities, tasks)}
    arguments = "".join(f"        {name}={value},\n" for name, value in fields.items())
    source = (
        '"""A random experiment."""\n\nimport functools\n\nimport optax\n\n'
        "from mmjax import Experiment, Model, auxiliary, balance, data, encoders, fusion\n"
        "from mmjax import heads, losses, metrics, sharing\n"
        "from mmjax.config import auto_config\nfrom mmjax.data import missing\n"
        "from mmjax.data.dataset import Task\nfrom mmjax.modalities import imbalance\n"
        "from mmjax.pretrained import LoRA\n\n\n"
        f"@auto_config\ndef experiment() -> Experiment:\n    return Experiment(\n{arguments}    )\n"
    )
    return Draw(source, examples, tasks if examples else {}, modalities)


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


def draw_arrays(rng: random.Random, folder: Path) -> tuple:
    """Draws arrays of images, sequences and vectors, whose gaps are masks, and writes them."""
    draws = np.random.default_rng(rng.getrandbits(32))
    kinds = rng.sample(("vector", "image", "sequence", "vector"), rng.choice((1, 2, 2, 3)))
    modalities = {f"{kind}_{i}": kind for i, kind in enumerate(kinds)}
    tasks = draw_tasks(rng, ("classification", "regression", "multilabel", "ordinal"))
    drop = rng.choice((0.0, 0.2, 0.4))
    raw: dict[str, Any] = {}
    labels: dict[str, Task] = {}
    for split, count in SIZES.items():
        hidden, arrays = draws.normal(size=count), {}
        for name, present in draw_present(rng, count, list(modalities)).items():
            x = draw_values(draws, modalities[name], hidden)
            lengths = draws.integers(2, 7, count)
            arrays |= {name: x, f"{name}_present": present}
            if modalities[name] == "sequence":
                arrays[f"{name}_length"] = lengths
            rows = [x[i][: lengths[i]] if x.ndim == 3 else x[i] for i in range(count)]
            raw[name] = [row if seen else None for row, seen in zip(rows, present, strict=True)]
        for task, kind in tasks.items():
            values, labeled = draw_targets(draws, kind, hidden), draws.random(count) >= drop
            arrays |= {task: values, f"{task}_labeled": labeled}
            labels[task] = Task(kind, values, labeled)
        np.savez(folder / f"{split}.npz", **arrays)
    files = {split: str(folder / f"{split}.npz") for split in SIZES}
    ordinal = [
        f"{t!r}: Task('ordinal', {tuple(map(str, range(CLASSES)))})"
        for t, kind in tasks.items()
        if kind == "ordinal"
    ]
    lengths = {m: f"{m}_length" for m, kind in modalities.items() if kind == "sequence"}
    text = (
        f"data.from_arrays({files}, {tuple(modalities)}, {tuple(tasks)}, lengths={lengths}, "
        f"present={ {m: f'{m}_present' for m in modalities} }, "
        f"labeled={ {t: f'{t}_labeled' for t in tasks} }, tasks={{{', '.join(ordinal)}}})"
    )
    return text, modalities, labels, raw


def draw_values(draws: np.random.Generator, kind: str, hidden: np.ndarray) -> np.ndarray:
    """Draws values of a modality that show the hidden variable [n]."""
    shape = {"vector": (5,), "image": (8, 8, 1), "sequence": (6, 3)}[kind]
    scales = draws.normal(size=shape)
    noise = draws.normal(size=(len(hidden), *shape))
    return (hidden.reshape(-1, *[1] * len(shape)) * scales + noise).astype(np.float32)


def draw_table(rng: random.Random, folder: Path) -> tuple:
    """Draws a CSV file of numbers, categories and words with empty cells, and writes it."""
    draws = np.random.default_rng(rng.getrandbits(32))
    kinds = rng.sample(("vector", "category", "text"), rng.choice((1, 2, 3)))
    tasks = draw_tasks(rng, ("classification", "regression"))
    count, columns = sum(SIZES.values()), {}
    hidden, drop = draws.normal(size=count), rng.choice((0.0, 0.3))
    for name, present in draw_present(rng, count, kinds).items():
        for i in range(2 if name != "text" else 1):
            level = np.clip(np.floor(hidden + draws.normal(size=count) / 2 + 2), 0, 3).astype(int)
            cells: list[Any] = {
                "vector": lambda: [float(f"{v:.4f}") for v in hidden + draws.normal(size=count)],
                "category": lambda level=level: [
                    ("red", "blue", "green", "gray")[v] for v in level
                ],
                "text": lambda level=level: [
                    " ".join(
                        ("bad", "so so", "good", "great day")[v] for v in (level[j], level[-j])
                    )
                    for j in range(count)
                ],
            }[name]()
            columns[f"{name}_{i}"] = [c if p else None for c, p in zip(cells, present, strict=True)]
    inputs = dict(columns)
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
        "split='split')"
    )
    raw = {name: cells[-SIZES["test"] :] for name, cells in inputs.items()}
    return text, {kind: kind for kind in kinds}, labels, raw


def draw_interactions(rng: random.Random, folder: Path) -> tuple:
    """Draws the built-in data set, with modalities and labels removed in all splits."""
    kinds = [rng.choice(("vector", "sequence")) for _ in range(rng.choice((2, 3)))]
    sizes = ", ".join(f"{split}={size}" for split, size in SIZES.items())
    text = (
        f"missing.at_random(data.interactions(modalities={tuple(kinds)}, width=6, steps=5, "
        f"{sizes}, noise=0.1, uniqueness=0.0), modalities={rng.choice((0.0, 0.3))}, "
        f"labels={rng.choice((0.0, 0.3))}, splits=('train', 'validation', 'test'))"
    )
    empty = np.zeros(0)
    tasks = {"redundancy": Task("binary", empty, empty), "synergy_ab": Task("binary", empty, empty)}
    chosen = rng.sample(list(tasks), rng.choice((1, 2)))
    return text, dict(zip("abc", kinds, strict=False)), {t: tasks[t] for t in chosen}, None


def draw_model(rng: random.Random, modalities: dict[str, str], tasks: dict[str, Task]) -> str:
    """Draws the text of a model."""
    encoders = {m: rng.choice(ENCODERS[kind]) for m, kind in modalities.items()}
    heads = {}
    for task, (kind, *_) in tasks.items():
        classes = 2 if kind == "binary" else CLASSES
        options = HEADS["classification" if kind == "binary" else kind]
        heads[task] = rng.choice(options[: rng.choice((1, len(options)))]).format(c=classes)
    fields = {
        "encoders": "{" + ", ".join(f"{m!r}: {e}" for m, e in encoders.items()) + "}",
        "fusion": f"fusion.{rng.choice(FUSIONS.split())}",
        "sharing": f"sharing.{rng.choice(SHARINGS.split())}",
        "heads": "{" + ", ".join(f"{t!r}: {h}" for t, h in heads.items()) + "}",
    }
    if rng.random() < 0.3:
        fields["missing"] = rng.choice(("'zeros'", "'token'", "'bank'"))
    return f"Model({', '.join(f'{name}={value}' for name, value in fields.items())})"


def draw_options(
    rng: random.Random, modalities: dict[str, str], tasks: dict[str, Task]
) -> dict[str, str]:
    """Draws the remaining arguments of an experiment."""
    balancer = f"balance.{rng.choice(BALANCERS.split())}"
    wrappers = (
        "imbalance.modulated({}, imbalance.ogm_ge(noise=False))",
        "imbalance.modulated({}, imbalance.ogm_ge())",
        "imbalance.modulated({}, imbalance.agm(), steps=3)",
        "imbalance.modulated({}, imbalance.cggm())",
        "imbalance.opm({})",
        "imbalance.info_reg({}, steps=4)",
    )
    if len(modalities) > 1 and rng.random() < 0.25:
        balancer = rng.choice(wrappers).format(balancer)
    options = {
        "optimizer": rng.choice(OPTIMIZERS),
        "balancer": balancer,
        "epochs": str(rng.choice((1, 2, 3))),
        "batch_size": str(rng.choice((8, 16, 16, 24))),
        "eval_batch_size": rng.choice(("16", "64")),
        "steps_per_dispatch": str(rng.choice((1, 2, 3))),
        "monitor": "'loss'",
    }
    image = next((m for m, kind in modalities.items() if kind == "image"), None)
    vector = next((m for m, kind in modalities.items() if kind in ("vector", "sequence")), None)
    task = next((t for t, x in tasks.items() if x.kind in ("classification", "binary")), None)
    extras = {
        "ema": rng.choice(("0.5", "0.9")),
        "trainable": rng.choice(
            ("('heads_*',)", "('encoders_*', 'heads_*')", "('fusion*', 'heads_*')")
        ),
        "lora": "{'encoders_*/*kernel': LoRA(rank=1)}",
        "accumulate": "2",
        "modality_dropout": "0.3",
        "augment": f"{{{image!r}: data.augment.shift_and_crop(1)}}" if image else "",
        "sampler": f"data.{rng.choice(('Stratified', 'ClassBalanced'))}({task!r})" if task else "",
        "stream": "True",
        "diagnostics": "True",
        "sharding": "'fsdp'",
        "patience": "1",
        "eval_every": "2",
        "cache_frozen": "True",
        "compute_dtype": "'bfloat16'",
    }
    if vector and not image:
        extras["augment"] = f"{{{vector!r}: data.augment.gaussian_noise(0.1)}}"
    for name, value in extras.items():
        if value and rng.random() < 0.15:
            options[name] = value
    return options
