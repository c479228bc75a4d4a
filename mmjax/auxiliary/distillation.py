"""Distillation: the model does as a teacher does that was trained before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.data.dataset import Modality
from mmjax.fusion.pooling import pool
from mmjax.heads import Classification, MultiLabel
from mmjax.model import Model
from mmjax.types import Batch, Params, Seen


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model. Its parameters are constants: they get no gradient and are not saved.

    `train.teacher.trained` makes one of a run.

    Attributes:
      model: of one modality, or several.
      params: its parameters, as NumPy arrays.
      modalities: {modality: the shape that it was trained on}.
    """

    model: Model
    params: Params
    modalities: Mapping[str, Modality]


def prediction_distance(
    student: Float[Array, "b c"],
    teacher: Float[Array, "b c"],
    temperature: float,
    *,
    exclusive: bool = True,
) -> Float[Array, " b"]:
    """T² KL(p_teacher ‖ p_student) in nats, with p = softmax(logits / T); at least 0.

    The factor keeps the gradient's size when T changes. With `exclusive=False` each logit stands
    for a yes or no of its own, and the mean over them is taken.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.
    """
    student, teacher = student / temperature, teacher / temperature
    if exclusive:
        found, wanted = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
        divergence = (jnp.exp(wanted) * (wanted - found)).sum(axis=-1)
    else:
        yes = jax.nn.log_sigmoid(teacher) - jax.nn.log_sigmoid(student)
        no = jax.nn.log_sigmoid(-teacher) - jax.nn.log_sigmoid(-student)
        p = jax.nn.sigmoid(teacher)
        divergence = (p * yes + (1 - p) * no).mean(axis=-1)
    return temperature**2 * jnp.maximum(divergence, 0)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Compares the model's encoders, or its predictions, with those of a trained teacher.

    For each example that has the teacher's modality: the mean squared difference of the encoders'
    outputs, each the mean of its tokens, plus `prediction_distance` of each task. For a teacher of
    several modalities, the differences are summed over those that are present. The loss is at
    least 0.

    Source: Du et al., "On uni-modal feature learning in supervised multi-modal learning", ICML
    2023 (arXiv:2305.01233), section 4, for the encoders (one teacher a modality, so one objective a
    modality); Hinton et al. 2015 (arXiv:1503.02531) for the predictions.

    Attributes:
      teacher: `train.teacher.trained(directory, arm)`.
      features: whether the encoders are compared; they need one width.
      tasks: tasks whose predictions are compared, of classification or multi-label heads.
      temperature: T, what divides their logits.
    """

    teacher: Teacher
    features: bool = True
    tasks: tuple[str, ...] = ()
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not (self.features or self.tasks):
            raise ValueError("Distillation compares nothing; set features=True, or name tasks.")
        if not self.temperature > 0:
            raise ValueError(f"Distillation.temperature is {self.temperature}; make it positive.")
        for task in self.tasks:
            heads = self.teacher.model.heads
            if task not in heads:
                raise ValueError(
                    f"Distillation names the task {task!r}, but the teacher has only "
                    f"{sorted(heads)}."
                )
            if not isinstance(heads[task], Classification | MultiLabel):
                raise ValueError(
                    f"Distillation names the task {task!r}, but the teacher's head is "
                    f"{type(heads[task]).__name__}; only logits of Classification and MultiLabel "
                    "can be compared."
                )

    def __call__(
        self,
        seen: Seen,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Total over this device's examples that the teacher can judge, and how many they are."""
        del train, gather
        known = sorted(self.teacher.model.encoders)
        check_inputs(self.teacher, seen, batch)
        there = {m: seen.tokens[m].mask.any(axis=1) for m in known}
        some = jnp.stack(list(there.values())).any(axis=0)
        features, backbones = self.ask(batch)
        losses = []
        if self.features:
            for m in known:
                each = feature_distance(m, seen, backbones)
                losses.append(jnp.where(there[m], each, 0))
        if self.tasks:
            wanted = self.predict(features)
            for t in self.tasks:
                exclusive = isinstance(self.teacher.model.heads[t], Classification)
                check_logits(t, predictions, wanted)
                each = prediction_distance(
                    predictions[t], wanted[t], self.temperature, exclusive=exclusive
                )
                losses.append(jnp.where(some, each, 0))
        return jnp.stack(losses).sum(), some.sum().astype(jnp.float32)

    def ask(self, batch: Batch) -> tuple[Any, tuple[Seen, ...]]:
        """What the teacher makes of the batch, as constants."""
        own = self.teacher.model.encoders
        inputs, present, lengths = ({m: part[m] for m in own if m in part} for part in batch[:3])
        made: Any = self.teacher.model.apply(
            {"params": self.teacher.params},
            inputs,
            present,
            lengths,
            train=False,
            method="represent_and_record",
        )
        return jax.lax.stop_gradient(made)

    def predict(self, features: Any) -> dict[str, Array]:
        """The teacher's predictions, as constants."""
        made: Any = self.teacher.model.apply(
            {"params": self.teacher.params}, features, train=False, method="predict"
        )
        return jax.lax.stop_gradient(made)


def feature_distance(modality: str, seen: Seen, backbones: tuple[Seen, ...]) -> Float[Array, " b"]:
    """Mean over the width of the squared difference between an encoder and the teacher's.

    Raises:
      ValueError: if the teacher has several encoders of the modality, or one of another width.
    """
    if len(backbones) > 1:
        raise ValueError(
            f"The teacher has {len(backbones)} encoders of {modality!r}, since its sharing copies "
            "the backbone; take one with HardSharing, or compare predictions by "
            "features=False, tasks=(...)."
        )
    found, wanted = (pool(s.tokens[modality]).values for s in (seen, backbones[0]))
    if found.shape != wanted.shape:
        raise ValueError(
            f"The encoder of {modality!r} has width {found.shape[1]}, but the teacher's has "
            f"{wanted.shape[1]}; make them equal, or compare predictions by features=False, "
            "tasks=(...)."
        )
    return ((found - wanted) ** 2).mean(axis=1)


def check_inputs(teacher: Teacher, seen: Seen, batch: Batch) -> None:
    """Raises ValueError unless the model has the teacher's modalities, in the same shapes."""
    for m in sorted(teacher.model.encoders):
        if m not in seen.tokens:
            raise ValueError(
                f"The teacher was trained on {m!r}, but the model encodes only "
                f"{sorted(seen.tokens)}."
            )
        # The first axis of a sequence is its padding, which may differ.
        first = int(teacher.modalities[m].sequence)
        trained, given = teacher.modalities[m].shape, tuple(batch.inputs[m].shape[1:])
        if trained[first:] != given[first:] or len(trained) != len(given):
            raise ValueError(
                f"The teacher was trained on {m!r} of shape {trained}, but the data have {given}; "
                "train it on the same data."
            )


def check_logits(task: str, predictions: dict[str, Array], wanted: dict[str, Array]) -> None:
    """Raises ValueError unless the model predicts the task with as many logits as the teacher."""
    if task not in predictions:
        raise ValueError(
            f"Distillation names the task {task!r}, but the model has only {sorted(predictions)}."
        )
    found, given = (p[task].shape[1:] for p in (predictions, wanted))
    if found != given:
        raise ValueError(
            f"The teacher predicts {given} logits of {task!r}, but the model {found}; train it on "
            "the same task."
        )
