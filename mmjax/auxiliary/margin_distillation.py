"""Distillation of relations between examples, weighted by the teacher's uncertainty."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.auxiliary.base import Gather, Sums, get_fused_vector, normalize_rows
from mmjax.auxiliary.distillation import Distillation, Teacher
from mmjax.kernels.linear_algebra import precise_dot
from mmjax.types import Batch, Intermediates


def relation_distance(
    student: Float[Array, "b d"],
    teacher: Float[Array, "b e"],
    logits: Float[Array, "b c"],
    counted: Bool[Array, " b"],
) -> Float[Array, ""]:
    """Computes Σ_i w_i ‖g_i - ĝ_i‖² of the similarities of each example to all that count.

    g_i is row i of F Fᵀ divided by its norm, of the student's features F; ĝ_i of the teacher's. w
    is the entropy of the teacher's prediction divided by its sum over examples: those near the
    boundary of classes count most. 0 if the teacher is certain of all.

    Source: Wei et al., CVPR 2023 (arXiv:2304.08028), section 3.2.

    Example:
      >>> f, logits, counted = jnp.eye(2), jnp.zeros((2, 3)), jnp.ones(2, bool)
      >>> float(relation_distance(f, f, logits, counted))
      0.0
      >>> print(f"{relation_distance(f, jnp.ones((2, 1)), logits, counted):.3f}")  # 2 - √2
      0.586
    """

    def relate(x: Array) -> Array:
        x = jnp.where(counted[:, None], x, 0)
        return normalize_rows(precise_dot(x, x.T))

    # Examples of which the teacher is unsure are near its margin; they count by their share of the
    # entropy, which is a constant: the teacher does not learn.
    log_p = jax.nn.log_softmax(logits)
    entropy = jnp.where(counted, -(jnp.exp(log_p) * log_p).sum(axis=1), 0)
    total = entropy.sum()
    weights = jax.lax.stop_gradient(entropy / jnp.where(total > 0, total, 1))
    return (weights * ((relate(student) - relate(teacher)) ** 2).sum(axis=1)).sum()


@dataclasses.dataclass(frozen=True)
class MarginDistillation:
    """MMANet's margin-aware distillation: `relation_distance` to a teacher of all modalities.

    It compares the fused vectors of model and teacher over the batch of all devices. The teacher
    sees every modality that an example has; the model learns to do without under `fusion.Hide`.
    Examples without any of the teacher's modalities do not count. The paper's second part,
    predictors of weak combinations of modalities, is not included. The loss is at least 0.

    Source: Wei et al., "MMANet: margin-aware distillation and modality-aware regularization for
    incomplete multimodal learning", CVPR 2023 (arXiv:2304.08028), section 3.2. The authors' code
    weights the columns of the similarities instead of the examples, and its entropy is NaN where a
    probability is 0.

    Attributes:
      teacher: `mmjax.runs.teacher.trained(directory, arm)`, with a fusion that gives one vector.
      task: the task of classification whose uncertainty weights the examples.

    Example:
      >>> from mmjax import encoders, fusion, heads
      >>> from mmjax.data.dataset import Modality
      >>> from mmjax.model import Model
      >>> parts = {"x": encoders.MLPEncoder((4,))}, fusion.Concat(), {"y": heads.Classification(3)}
      >>> model, inputs = Model(*parts), ({"x": jnp.zeros((2, 5))}, {"x": jnp.ones(2, bool)}, {})
      >>> params = model.init(jax.random.key(0), *inputs, train=False)["params"]
      >>> objective = MarginDistillation(Teacher(model, params, {"x": Modality((5,))}), "y")
      >>> student = model.clone(auxiliary={"imitate": objective})
    """

    teacher: Teacher
    task: str

    def __post_init__(self) -> None:
        self._make_distillation()  # which checks that the teacher has such a task

    def __call__(
        self,
        seen: Intermediates,
        predictions: dict[str, Array],
        batch: Batch,
        *,
        train: bool,
        gather: Gather,
    ) -> Sums:
        """Returns the loss over the batch of all devices, and 1 if there are examples to relate."""
        del predictions, train
        distillation = self._make_distillation()
        distillation.check_inputs(seen, batch)
        modalities = sorted(self.teacher.model.encoders)
        counted = gather(jnp.stack([batch.present[m] for m in modalities]).any(axis=0))
        features, backbones = distillation.run_teacher(batch)
        logits = distillation.predict_as_teacher(features)[self.task]
        student, teacher = (gather(get_fused_vector(self, x)) for x in (seen, backbones[0]))
        enough = counted.sum() >= 2  # a single example has no relation to others
        loss = relation_distance(student, teacher, gather(logits), counted)
        return jnp.where(enough, loss, 0), enough.astype(jnp.float32)

    def _make_distillation(self) -> Distillation:
        """Makes the objective that runs the teacher and checks that it fits."""
        return Distillation(self.teacher, features=False, tasks=(self.task,))
