"""Losses, each for ONE example: (prediction, target) -> scalar. The caller vmaps, masks, averages.

Any function of this shape can be a head's `loss`. Bind options by `functools.partial`:

    Classification(10, loss=functools.partial(losses.cross_entropy, label_smoothing=0.1))
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer, Num, Shaped

Scalar = Float[Array, ""]


def cross_entropy(
    logits: Float[Array, " c"], target: Integer[Array, ""], label_smoothing: float = 0.0
) -> Scalar:
    """Cross-entropy, in nats, of softmax(logits) against a class index.

    With smoothing α the target is 1 - α at the class plus α / c everywhere (Szegedy et al., CVPR
    2016).
    """
    labels = jax.nn.one_hot(target, logits.shape[0], dtype=logits.dtype)
    return optax.losses.softmax_cross_entropy(
        logits, optax.losses.smooth_labels(labels, label_smoothing)
    )


def binary_cross_entropy(logits: Float[Array, " c"], target: Shaped[Array, " c"]) -> Scalar:
    """Mean over classes of the cross-entropy, in nats, of sigmoid(logit) against 0 or 1."""
    labels = target.astype(logits.dtype)
    return optax.losses.sigmoid_binary_cross_entropy(logits, labels).mean()


def squared_error(prediction: Scalar, target: Num[Array, ""]) -> Scalar:
    """(prediction - target)²."""
    return optax.losses.squared_error(prediction, target.astype(prediction.dtype))


def absolute_error(prediction: Scalar, target: Num[Array, ""]) -> Scalar:
    """|prediction - target|; its gradient is 0 at equality."""
    return jnp.abs(prediction - target)


def huber(prediction: Scalar, target: Num[Array, ""], delta: float = 1.0) -> Scalar:
    """½ e² where |e| ≤ delta, and delta (|e| - ½ delta) beyond (Huber 1964).

    A regression head gives it standardised values, so `delta` counts in the head's `scale`.
    """
    return optax.losses.huber_loss(prediction, target.astype(prediction.dtype), delta=delta)
