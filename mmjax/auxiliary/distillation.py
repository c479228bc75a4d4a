"""Distillation: the model imitates a teacher that was trained before."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mmjax.auxiliary.base import Gather, Sums
from mmjax.data.dataset import Modality, split_parts
from mmjax.fusion.pooling import pool
from mmjax.heads import Classification, MultiLabel
from mmjax.model import Model
from mmjax.types import Batch, Intermediates, Params, Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained model. Its parameters are constants: they get no gradient and are not saved.

    Use `mmjax.runs.teacher.trained` to load it from a run.

    Attributes:
      model: of one modality, or several.
      params: its parameters, as NumPy arrays.
      modalities: {modality: description of the inputs that it was trained on}.
      variables: its other variables {collection: tree}, such as batch statistics.
    """

    model: Model
    params: Params
    modalities: Mapping[str, Modality]
    variables: Variables = dataclasses.field(default_factory=dict)

    @property
    def all_variables(self) -> Variables:
        """The parameters and other variables, as `Model.apply` takes them."""
        return {"params": self.params, **self.variables}


def prediction_distance(
    student: Float[Array, "b c"],
    teacher: Float[Array, "b c"],
    temperature: float,
    *,
    exclusive: bool = True,
) -> Float[Array, " b"]:
    """Computes T² KL(p_teacher ‖ p_student) in nats, with p = softmax(logits / T); at least 0.

    The factor T² keeps the size of the gradient when T changes. With `exclusive=False` each logit
    is that of a binary variable of its own, and the result is the mean over them.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2.

    Example:
      >>> student, teacher = jnp.array([[0.0, 0.0]]), jnp.array([[0.0, 2.0]])
      >>> prediction_distance(student, student, 2.0).tolist()
      [0.0]
      >>> print(f"{prediction_distance(student, teacher, 2.0)[0]:.3f}")
      0.444
    """
    student, teacher = student / temperature, teacher / temperature
    if exclusive:
        # Logarithms of softmax directly: their difference is finite for any finite logits.
        # KL(p | q) = sum_c p_c (log p_c - log q_c)
        log_q, log_p = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
        divergence = (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    else:
        # The same sum over the two outcomes of each binary variable; log(1 - p) = log
        # sigmoid(-logit).
        yes = jax.nn.log_sigmoid(teacher) - jax.nn.log_sigmoid(student)
        no = jax.nn.log_sigmoid(-teacher) - jax.nn.log_sigmoid(-student)
        p = jax.nn.sigmoid(teacher)
        divergence = (p * yes + (1 - p) * no).mean(axis=-1)
    return temperature**2 * jnp.maximum(divergence, 0)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Compares the model's encoders, or its predictions, with those of a trained teacher.

    An example that has the teacher's modality adds the mean squared difference of the encoders'
    outputs, each the mean of its tokens, plus `prediction_distance` of each task. For a teacher of
    several modalities, the differences are summed over the present ones. The loss is at least 0.

    Source: Du et al., "On uni-modal feature learning in supervised multi-modal learning", ICML
    2023 (arXiv:2305.01233), section 4, for the encoders (one teacher, and so one objective, per
    modality); Hinton et al. 2015 (arXiv:1503.02531) for the predictions.

    Attributes:
      teacher: `mmjax.runs.teacher.trained(directory, arm)`.
      features: whether the encoders are compared; they need the same width.
      tasks: tasks whose predictions are compared, of classification or multi-label heads.
      temperature: T, which divides their logits.

    Example:
      >>> from mmjax import encoders, fusion
      >>> model = Model({"x": encoders.MLPEncoder((4,))}, fusion.Concat(), {"y": Classification(3)})
      >>> inputs = {"x": jnp.zeros((2, 5))}, {"x": jnp.ones(2, bool)}, {}
      >>> params = model.init(jax.random.key(0), *inputs, train=False)["params"]
      >>> teacher = Teacher(model, params, {"x": Modality((5,))})
      >>> objective = Distillation(teacher, tasks=("y",))
      >>> student = model.clone(auxiliary={"imitate": objective})
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
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the total over this device's examples that fit the teacher, and their number."""
        del train, gather
        modalities = sorted(self.teacher.model.encoders)
        self.check_inputs(seen, batch)
        present = {m: seen.tokens[m].mask.any(axis=1) for m in modalities}
        any_present = jnp.stack(list(present.values())).any(axis=0)
        features, backbones = self.run_teacher(batch)
        losses = []
        if self.features:
            for m in modalities:
                distances = _feature_distance(m, seen, backbones)
                losses.append(jnp.where(present[m], distances, 0))
        if self.tasks:
            teacher_predictions = self.predict_as_teacher(features)
            for t in self.tasks:
                exclusive = isinstance(self.teacher.model.heads[t], Classification)
                _check_teacher_logits(t, predictions, teacher_predictions)
                distances = prediction_distance(
                    predictions[t], teacher_predictions[t], self.temperature, exclusive=exclusive
                )
                losses.append(jnp.where(any_present, distances, 0))
        return jnp.stack(losses).sum(), any_present.sum().astype(jnp.float32)

    def check_inputs(self, seen: Intermediates, batch: Batch) -> None:
        """Raises ValueError unless the model has the teacher's modalities, in the same shapes."""
        _check_teacher_inputs(self.teacher, seen, batch)

    def run_teacher(self, batch: Batch) -> tuple[Any, tuple[Intermediates, ...]]:
        """Returns the teacher's features and intermediate values for the batch, as constants."""
        encoders = self.teacher.model.encoders
        parts = [{m: part[m] for m in encoders if m in part} for part in batch[:3]]
        outputs: Any = self.teacher.model.apply(
            self.teacher.all_variables, *parts, train=False, method="represent_and_record"
        )
        return jax.lax.stop_gradient(outputs)

    def predict_as_teacher(self, features: Any) -> dict[str, Array]:
        """Returns the teacher's predictions, as constants."""
        outputs: Any = self.teacher.model.apply(
            self.teacher.all_variables, features, train=False, method="predict"
        )
        return jax.lax.stop_gradient(outputs)


def _feature_distance(
    modality: str, seen: Intermediates, backbones: tuple[Intermediates, ...]
) -> Float[Array, " b"]:
    """Computes the mean over the width of the squared difference between two encoders' outputs.

    Raises:
      ValueError: if the teacher has several encoders of the modality, or one of another width.
    """
    if len(backbones) > 1:
        raise ValueError(
            f"The teacher has {len(backbones)} encoders of {modality!r}, since its sharing copies "
            "the backbone; take one with HardSharing, or compare predictions by "
            "features=False, tasks=(...)."
        )
    student = pool(seen.tokens[modality]).values
    teacher = pool(backbones[0].tokens[modality]).values
    if student.shape != teacher.shape:
        raise ValueError(
            f"The encoder of {modality!r} has width {student.shape[1]}, but the teacher's has "
            f"{teacher.shape[1]}; make them equal, or compare predictions by features=False, "
            "tasks=(...)."
        )
    return ((student - teacher) ** 2).mean(axis=1)


def _check_teacher_inputs(teacher: Teacher, seen: Intermediates, batch: Batch) -> None:
    """Raises ValueError unless the model has the teacher's modalities, in the same shapes."""
    for m in sorted(teacher.model.encoders):
        if m not in seen.tokens:
            raise ValueError(
                f"The teacher was trained on {m!r}, but the model encodes only "
                f"{sorted(seen.tokens)}."
            )
    encoded = {m: teacher.modalities[m] for m in teacher.model.encoders}
    flat, modalities = split_parts(batch, encoded)
    for m in sorted(modalities):
        # The first axis of a sequence is its padding, which may differ.
        first = int(modalities[m].sequence)
        trained, given = modalities[m].shape, tuple(flat.inputs[m].shape[1:])
        if trained[first:] != given[first:] or len(trained) != len(given):
            raise ValueError(
                f"The teacher was trained on {m!r} of shape {trained}, but the data have {given}; "
                "train it on the same data."
            )


def _check_teacher_logits(
    task: str, predictions: dict[str, Array], teacher: dict[str, Array]
) -> None:
    """Raises ValueError unless the model predicts the task with as many logits as the teacher."""
    if task not in predictions:
        raise ValueError(
            f"Distillation names the task {task!r}, but the model has only {sorted(predictions)}."
        )
    student_shape, teacher_shape = predictions[task].shape[1:], teacher[task].shape[1:]
    if student_shape != teacher_shape:
        raise ValueError(
            f"The teacher predicts {teacher_shape} logits of {task!r}, but the model "
            f"{student_shape}; train it on the same task."
        )
