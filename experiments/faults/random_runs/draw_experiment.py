"""Draws small random experiments, as the text of an experiment file and the raw test examples.

The parts are combined freely where they may fit; whether they do is left to `mmjax run`.
"""

import random
from pathlib import Path
from typing import Any, NamedTuple

from random_runs.draw_data import Data, Task, draw_data
from random_runs.draw_losses import draw_losses
from random_runs.draw_model import Parts, draw_parts, write_dict, write_model

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
)
AUGMENTS = {
    "image": "data.augment.shift_and_crop(1)",
    "vector": "data.augment.gaussian_noise(0.1)",
    "sequence": "data.augment.gaussian_noise(0.1)",
    "tokens": "data.augment.token_dropout(0.2)",
    "text": "data.augment.token_dropout(0.2)",
}
# Encoders with kernels of too few inputs or outputs for an update of low rank, or without any.
WITHOUT_KERNELS = ("Features", "Conv", "Residual", "DeepSets")
HEADER = '''"""A random experiment."""

import functools

import optax

from mmjax import Experiment, Model, auxiliary, balance, data, encoders, fusion
from mmjax import heads, losses, metrics, sharing
from mmjax.config import auto_config
from mmjax.data import missing
from mmjax.data.dataset import Task
from mmjax.modalities import imbalance
from mmjax.pretrained import LoRA


@auto_config
def experiment() -> Experiment:
    return Experiment(
'''


class Draw(NamedTuple):
    """A random experiment.

    Attributes:
      source: the text of its file.
      examples: {modality or column: raw test values}, as `Trained.predict` takes them.
      tasks: {task: its test labels}; empty if `examples` is None.
      modalities: their names.
      has_arms: whether each modality alone makes an experiment, too.
    """

    source: str
    examples: dict[str, Any] | None
    tasks: dict[str, Task]
    modalities: tuple[str, ...]
    has_arms: bool


def draw_experiment(rng: random.Random, folder: Path) -> Draw:
    """Draws an experiment, and writes its data into a folder."""
    data = draw_data(rng, folder)
    parts = draw_parts(rng, data)
    freezing = draw_freezing(rng, data, parts)
    trained = freezing.get("trainable", "encoders")
    share = ("encoders" in trained or "fusion" in trained) and "TaskSpecific" not in parts.sharing
    auxiliary, balancer = draw_losses(rng, data, parts, share=share)
    fields = {
        "data": data.source,
        "model": write_model(rng, parts, auxiliary),
        "balancer": balancer,
        **draw_options(rng, data, parts),
        **freezing,
    }
    if auxiliary or "augment" in fields:
        fields.pop("cache_frozen", None)
    if not share:
        fields.pop("diagnostics", None)  # of the gradients with respect to shared parameters
    arguments = "".join(f"        {name}={value},\n" for name, value in fields.items())
    source = f"{HEADER}{arguments}    )\n"
    # Objectives and patterns of a certain modality are refused where it is left out.
    has_arms = len(data.modalities) > 1 and not auxiliary and not freezing
    tasks = data.tasks if data.examples else {}
    return Draw(source, data.examples, tasks, tuple(data.modalities), has_arms)


def draw_freezing(rng: random.Random, data: Data, parts: Parts) -> dict[str, str]:
    """Draws which parameters train."""
    fields = {}
    modality = rng.choice(list(data.modalities))
    if rng.random() < 0.15 and not any(x in parts.encoders[modality] for x in WITHOUT_KERNELS):
        fields["lora"] = f"{{'*encoders_{modality}/*kernel': LoRA(rank=1)}}"
    if rng.random() < 0.25:
        patterns = ["*heads_*"]
        if rng.random() < 0.7 and not parts.fusion.startswith(("fusion.Concat", "fusion.Late")):
            patterns.append("*fusion/*")
        for m, encoder in parts.encoders.items():
            if m != modality and "Features" not in encoder and rng.random() < 0.5:
                patterns.append(f"*encoders_{m}/*")
        fields["trainable"] = repr(tuple(patterns))
        random_tokens = any("dropout" in encoder for encoder in parts.encoders.values())
        has_frozen = "Features" not in parts.encoders[modality] and "lora" not in fields
        if has_frozen and not random_tokens and not parts.has_copies and rng.random() < 0.6:
            fields["cache_frozen"] = "True"
    return fields


def draw_options(rng: random.Random, data: Data, parts: Parts) -> dict[str, str]:
    """Draws the remaining arguments of an experiment."""
    options = {
        "optimizer": draw_optimizer(rng, data, parts),
        "epochs": str(rng.choice((1, 2, 3))),
        "batch_size": str(rng.choice((8, 16, 16, 24))),
        "eval_batch_size": rng.choice(("16", "64")),
        "steps_per_dispatch": str(rng.choice((1, 2, 3))),
        "monitor": "'loss'",
    }
    augments = {}
    for m, kind in data.modalities.items():
        if kind in AUGMENTS and rng.random() < 0.7:
            augments[m] = AUGMENTS[kind]
    classes = [task for task, labels in data.tasks.items() if labels.has_one_class]
    sampler = rng.choice(("data.Stratified({!r})", "data.ClassBalanced({!r})"))
    dropped = rng.choice(list(data.modalities))
    extras = {
        "ema": rng.choice(("0.5", "0.9")),
        "accumulate": "2",
        "modality_dropout": rng.choice(("0.3", f"{{{dropped!r}: 0.5}}")),
        "augment": write_dict(augments) if augments else "",
        "sampler": sampler.format(rng.choice(classes)) if classes else "",
        "stream": "True",
        "diagnostics": "True",
        "sharding": "'fsdp'",
        "patience": "1",
        "eval_every": "2",
        "compute_dtype": "'bfloat16'",
    }
    for name, value in extras.items():
        if value and rng.random() < 0.15:
            options[name] = value
    return options


def draw_optimizer(rng: random.Random, data: Data, parts: Parts) -> str:
    """Draws an optimizer; one that accumulates gradients needs labels of the same weight."""
    optimizer = rng.choice(OPTIMIZERS)
    weighted = any("balanced" in head for head in parts.heads.values())
    if data.complete and not weighted and rng.random() < 0.4:
        return f"optax.MultiSteps({optimizer}, 2)"
    return optimizer
