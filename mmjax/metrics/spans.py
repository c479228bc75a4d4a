"""F1 of labeled spans of tokens, such as names in a text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from mmjax.metrics.class_counts import mean_from_sum
from mmjax.metrics.direction import declare_metric

Span = tuple[str, int, int]  # type, first token, token after the last


@declare_metric("max", "sequence")
def span_f1(
    prediction: Float[np.ndarray, "n t c"],
    target: Integer[np.ndarray, "n t"],
    classes: Sequence[str] = (),
) -> float:
    """Computes the F1 of spans: one is right if its type and both of its ends are right.

    Tokens without a label (-1) are left out, in predictions too. Source: Tjong Kim Sang and De
    Meulder, CoNLL 2003.

    Args:
      prediction: logits.
      target: classes, or -1.
      classes: names of the classes by the IOB2 scheme: "O", "B-PER", "I-PER", ...

    Raises:
      ValueError: if `classes` does not name every class.

    Example:
      >>> names = ["O", "B-X", "I-X"]
      >>> target = np.array([[1, 2, 0, 1]])
      >>> span_f1(np.eye(3)[[[1, 2, 0, 0]]], target, classes=names) * 3  # one of two: P 1, R 1/2
      2.0
    """
    if len(classes) != prediction.shape[-1]:
        raise ValueError(
            f"classes has {len(classes)} names for {prediction.shape[-1]} classes; bind the task's "
            "names: functools.partial(span_f1, classes=...)"
        )
    right = found = true = 0
    for predicted, row in zip(prediction.argmax(axis=-1), target, strict=True):
        # Padding has no tag; without it, the rest of the row is one sequence.
        labeled = row >= 0
        spans = set(list_spans([classes[i] for i in predicted[labeled]]))
        true_spans = set(list_spans([classes[i] for i in row[labeled]]))
        right += len(spans & true_spans)
        found, true = found + len(spans), true + len(true_spans)
    # F1 = 2 tp / (2 tp + fp + fn), where tp + fp is the number of predicted spans and tp + fn of
    # true ones. A span is right only if its type and both of its ends are.
    return mean_from_sum(2.0 * right, float(found + true))


def list_spans(tags: Sequence[str]) -> list[Span]:
    """Lists the spans of IOB2 tags; an I- that continues nothing starts a span.

    Example:
      >>> list_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
      [('PER', 0, 2), ('LOC', 3, 4), ('LOC', 4, 5)]
    """
    spans: list[Span] = []
    kind, start = "", 0
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        # The tag ends the open span: it is outside, begins another span, or is inside another type.
        if kind and not (prefix == "I" and name == kind):
            spans.append((kind, start, i))
            kind = ""
        # An I without a span before it begins one, as in the CoNLL evaluation.
        if prefix in ("B", "I") and not kind:
            kind, start = name, i
    return spans
