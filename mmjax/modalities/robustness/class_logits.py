"""Logits of exclusive classes of a split, from every subset of the modalities, for all heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped
from scipy import special

from mmjax.data.dataset import Dataset, Task, get_split
from mmjax.metrics.flatten import CLASS_KINDS
from mmjax.modalities.robustness.padded_batches import iterate_padded_batches
from mmjax.modalities.subsets import predict_from_subsets
from mmjax.runs.trained import Trained

CALIBRATED_KINDS = (*CLASS_KINDS, "ordinal", "multilabel")
_MIN_GAP = 1e-6  # between the thresholds of an order, as in `mmjax.losses.cumulative_link`


class SubsetLogits(NamedTuple):
    """Logits [seeds subsets n ... c], targets [n ...] and which count [subsets n] of one task.

    A target of -1 is not a label.
    """

    logits: np.ndarray
    targets: Integer[np.ndarray, "n ..."]
    counts: Bool[np.ndarray, "k n"]

    def select(self, seed: int, subset: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits and targets of the examples that count."""
        counts = self.counts[subset]
        return self.logits[seed, subset][counts], self.targets[counts]

    def select_label(self, label: int) -> "SubsetLogits":
        """Returns those of one of several labels, of the examples whose label is known."""
        targets = self.targets[:, label]
        return SubsetLogits(self.logits[..., label, :], targets, self.counts & (targets >= 0))


def has_class_labels(task: Task) -> bool:
    """Returns whether the labels of a task are classes: one, several, or ordered ones."""
    # A classification with a shape has shares of classes as its targets.
    return task.kind in CALIBRATED_KINDS and not (task.kind == "classification" and task.shape)


def convert_to_class_logits(kind: str, outputs: Float[np.ndarray, "..."]) -> np.ndarray:
    """Converts the outputs of a head to logits whose softmax are the probabilities of classes.

    Args:
      kind: of the task. Each of several labels becomes two classes, 0 and 1; ordered classes get
        the logarithms of their probabilities.
      outputs: [... c], of ordered classes the logits [... c-1] of P(y > k).

    Example:
      >>> convert_to_class_logits("multilabel", np.array([2.0])).tolist()
      [[0.0, 2.0]]
      >>> np.exp(convert_to_class_logits("ordinal", np.array([0.0, -np.log(3)]))).round(3).tolist()
      [0.5, 0.25, 0.25]
    """
    if kind == "multilabel":
        return np.stack([np.zeros_like(outputs), outputs], axis=-1)
    if kind != "ordinal":
        return outputs
    ends = np.full((*outputs.shape[:-1], 1), np.inf)
    bounds = np.concatenate([ends, outputs.astype(np.float64), -ends], axis=-1)
    above, below = bounds[..., :-1], bounds[..., 1:]
    # P(y = k) = σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), which does not cancel.
    gap = -np.expm1(-np.maximum(above - below, _MIN_GAP))
    return special.log_expit(above) + special.log_expit(-below) + np.log(gap)


def predict_class_logits(
    trained: Trained,
    data: Dataset,
    split: str,
    subsets: Bool[np.ndarray, "k m"],
    tasks: Sequence[str],
) -> dict[str, SubsetLogits]:
    """Predicts a split from every subset with every seed; {task: logits}.

    Examples without any modality of a subset do not count there.

    Args:
      trained: one seed or several.
      data: the data set.
      split: the name of the split.
      subsets: which modalities each subset has, in the order of `sorted(model.encoders)`.
      tasks: tasks with class labels.
    """

    @jax.jit
    def predict(variables: Any, batch: Any) -> dict[str, Any]:
        return predict_from_subsets(
            trained.model, variables, batch, subsets, compute_dtype=trained.compute_dtype
        )

    members = trained.list_seed_variables()
    parts: dict[str, list[Any]] = {task: [] for task in tasks}
    for batch, _ in iterate_padded_batches(trained, get_split(data, split)):
        present = np.stack([batch.present[m] for m in sorted(trained.model.encoders)])
        has_modality = (subsets.astype(int) @ present.astype(int)) > 0
        inputs = batch._replace(targets={}, labeled={})
        outputs = jax.device_get([predict(variables, inputs) for variables in members])
        for task in tasks:
            kind = trained.spec.tasks[task].kind
            logits = convert_to_class_logits(kind, np.stack([output[task] for output in outputs]))
            targets = _convert_targets(kind, batch.targets[task])
            parts[task].append((logits, targets, has_modality & batch.labeled[task][None]))
    predictions = {}
    for task, batches in parts.items():
        of_batches = list(zip(*batches, strict=True))
        predictions[task] = SubsetLogits(
            np.concatenate(of_batches[0], axis=2),
            np.concatenate(of_batches[1]),
            np.concatenate(of_batches[2], axis=1),
        )
    return predictions


def _convert_targets(kind: str, targets: Shaped[np.ndarray, "..."]) -> Integer[np.ndarray, "..."]:
    """Returns targets as classes; several labels may be of any type of number."""
    return np.asarray(targets, np.int32) if kind == "multilabel" else np.asarray(targets)
