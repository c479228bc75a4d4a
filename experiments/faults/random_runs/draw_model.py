"""Draws random small models, as text: encoders, fusion, sharing and heads that fit the data."""

import random
from typing import NamedTuple

from random_runs.draw_data import TOKENS, Data, Task

# Encoders without parameters are last, where `draw_encoder` can leave them out.
SEQUENCE_ENCODERS = (
    "encoders.RecurrentEncoder(encoders.gru(), 4)",
    "encoders.RecurrentEncoder(encoders.elman(), 3, bidirectional=True, output='mean')",
    "encoders.RecurrentEncoder(encoders.lstm(), 4, layers=2, output='all')",
    "encoders.Conv1dEncoder((4,), 3, dropout=0.2)",
    "encoders.Conv1dEncoder((4,), 3, output='all')",
    "encoders.TemporalConvEncoder((4, 4), 2)",
    "encoders.TransformerEncoder(4, 1, 2)",
    "encoders.TransformerEncoder(4, 1, 2, output='all')",
)
TEXT_ENCODERS = tuple(f"embedding=3, encoder={encoder})" for encoder in SEQUENCE_ENCODERS)
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
        "encoders.ConvEncoder((2, 4))",
        "encoders.ConvEncoder((4,), norm=True)",
        "encoders.ResidualEncoder((2, 4))",
        "encoders.ResidualEncoder((4,), output='all')",
        "encoders.TransformerEncoder(4, 1, 2, patch=(4, 4), output='class')",
        "encoders.MLPEncoder((4,))",
    ),
    "sequence": (*SEQUENCE_ENCODERS, "encoders.DeepSetsEncoder((4,), (4,))"),
    "text": tuple(f"encoders.TextEncoder({rest}" for rest in TEXT_ENCODERS),
    "tokens": tuple(f"encoders.TextEncoder({TOKENS}, {rest}" for rest in TEXT_ENCODERS),
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
RANDOM_PARTS = (
    "dropout=0",
    "Embrace",
    "ProductOfExperts",
    "ActionMAE",
    "Hide",
    "MultiModN(",
    "LTB",
    "mix=",
)


class Parts(NamedTuple):
    """The parts of a model, as text, by modality or task where there are several."""

    encoders: dict[str, str]
    fusion: str
    sharing: str
    heads: dict[str, str]

    @property
    def is_late(self) -> bool:
        """Whether every modality has a branch with heads of its own."""
        return "Late" in self.fusion

    @property
    def has_copies(self) -> bool:
        """Whether tasks have copies of the encoders."""
        return "backbones" in self.sharing or "TaskSpecific" in self.sharing


def draw_parts(rng: random.Random, data: Data) -> Parts:
    """Draws the parts of a model."""
    encoders = {m: rng.choice(ENCODERS[kind]) for m, kind in data.modalities.items()}
    fusions, sharings = FUSIONS.split(), SHARINGS.split()
    if not has_several_tokens(encoders):
        fusions = [name for name in fusions if not name.startswith("CrossModal")]
    heads = {task: draw_head(rng, labels) for task, labels in data.tasks.items()}
    return Parts(
        encoders, f"fusion.{rng.choice(fusions)}", f"sharing.{rng.choice(sharings)}", heads
    )


def has_several_tokens(encoders: dict[str, str]) -> bool:
    """Checks whether some encoder returns several tokens, to which a fusion can attend."""
    return any("'all'" in encoder for encoder in encoders.values())


def draw_head(rng: random.Random, labels: Task) -> str:
    """Draws the head of a task."""
    options = HEADS["classification" if labels.has_one_class else labels.kind]
    return rng.choice(options[: rng.choice((1, len(options)))]).format(c=labels.classes)


def write_dict(texts: dict[str, str]) -> str:
    """Writes a dictionary whose values are expressions."""
    return "{" + ", ".join(f"{key!r}: {text}" for key, text in texts.items()) + "}"


def write_model(rng: random.Random, parts: Parts, auxiliary: dict[str, str]) -> str:
    """Writes the call that builds the model."""
    fields = {
        "encoders": write_dict(parts.encoders),
        "fusion": parts.fusion,
        "sharing": parts.sharing,
        "heads": write_dict(parts.heads),
        "auxiliary": write_dict(auxiliary),
    }
    if rng.random() < 0.3:
        fields["missing"] = rng.choice(("'zeros'", "'token'", "'bank'"))
    return f"Model({', '.join(f'{name}={value}' for name, value in fields.items())})"
