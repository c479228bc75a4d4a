"""Losses, each for ONE example: (prediction, target) -> scalar. The caller vmaps, masks, averages.

Any function with this signature can be a head's `loss`. Bind options by `functools.partial`:

Example:
  >>> import functools
  >>> from mmjax import losses
  >>> from mmjax.heads import Classification
  >>> smoothed = functools.partial(losses.cross_entropy, label_smoothing=0.1)
  >>> head = Classification(10, loss=smoothed)
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Integer, Num, Shaped

Scalar = Float[Array, ""]


def cross_entropy(
    logits: Float[Array, " c"],
    target: Integer[Array, ""] | Float[Array, " c"],
    label_smoothing: float = 0.0,
) -> Scalar:
    """Computes -log softmax(logits)[target], in nats; of shares [c], its mean under the shares.

    With smoothing α the target distribution is 1 - α at the class plus α / c everywhere (Szegedy et
    al., CVPR 2016).

    Example:
      >>> print(f"{cross_entropy(jnp.zeros(4), jnp.array(2)):.3f}")  # ln 4
      1.386
      >>> print(f"{cross_entropy(jnp.log(jnp.array([0.75, 0.25])), jnp.array([0.5, 0.5])):.3f}")
      0.837
    """
    if target.ndim:
        labels = target.astype(logits.dtype)
    else:
        labels = jax.nn.one_hot(target, logits.shape[0], dtype=logits.dtype)
    return optax.losses.softmax_cross_entropy(
        logits, optax.losses.smooth_labels(labels, label_smoothing)
    )


def binary_cross_entropy(logits: Float[Array, " c"], target: Shaped[Array, " c"]) -> Scalar:
    """Computes the mean over classes of the cross-entropy, in nats, of σ(logit) against 0 or 1.

    Example:
      >>> print(f"{binary_cross_entropy(jnp.zeros(3), jnp.array([0, 1, 1])):.3f}")  # ln 2
      0.693
    """
    labels = target.astype(logits.dtype)
    return optax.losses.sigmoid_binary_cross_entropy(logits, labels).mean()


def focal(
    logits: Float[Array, " c"],
    target: Integer[Array, ""] | Float[Array, " c"],
    gamma: float = 2.0,
) -> Scalar:
    """Computes -(1 - p)^γ log p of the target class, in nats; of shares [c], its sum under them.

    p is the softmax probability; γ = 0 is the cross-entropy. Weights of classes, the α of the
    source, are the head's `class_weights`.

    Source: Lin et al., ICCV 2017 (arXiv:1708.02002), equation 4, for several classes.

    Example:
      >>> print(f"{focal(jnp.zeros(4), jnp.array(2)):.3f}")  # (3/4)² ln 4
      0.780
    """
    if target.ndim:
        shares = target.astype(logits.dtype)
    else:
        shares = jax.nn.one_hot(target, logits.shape[0], dtype=logits.dtype)
    log_p = jax.nn.log_softmax(logits)
    # 1 - p without cancellation; above 0, where a power below 1 has an infinite slope.
    others = jnp.maximum(-jnp.expm1(log_p), 1e-12)
    return -(shares * others**gamma * log_p).sum()


def binary_focal(
    logits: Float[Array, " c"],
    target: Shaped[Array, " c"],
    gamma: float = 2.0,
    alpha: float | None = 0.25,
) -> Scalar:
    """Computes the mean over classes of -α_t (1 - p_t)^γ log p_t, in nats, of σ(logit).

    p_t is the probability of the right one of 0 and 1; α_t is α for 1, 1 - α for 0, and 1 if
    α is None.

    Source: Lin et al., ICCV 2017 (arXiv:1708.02002), equation 5.

    Example:
      >>> print(f"{binary_focal(jnp.zeros(3), jnp.array([0, 1, 1]), alpha=None):.3f}")  # ¼ ln 2
      0.173
    """
    labels = target.astype(logits.dtype)
    return optax.losses.sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma).mean()


def dirichlet_cross_entropy(
    log_alpha: Float[Array, " c"], target: Integer[Array, ""] | Float[Array, " c"]
) -> Scalar:
    """Computes E[-log p_target] in nats for p ~ Dirichlet(α): ψ(Σα) - ψ(α_target), at least 0.

    Of shares [c] it is the mean under the shares. The prediction is log α, whose softmax is the
    mean of the Dirichlet distribution; see `mmjax.heads.Evidential`.

    Source: Han et al., ICLR 2021 (arXiv:2102.02051), equation 8; Sensoy et al., NeurIPS 2018
    (arXiv:1806.01768), equation 4.

    Example:
      >>> print(f"{dirichlet_cross_entropy(jnp.zeros(2), jnp.array(0)):.3f}")  # ψ(2) - ψ(1)
      1.000
    """
    if target.ndim:
        shares = target.astype(log_alpha.dtype)
    else:
        shares = jax.nn.one_hot(target, log_alpha.shape[0], dtype=log_alpha.dtype)
    # Float32 ends at e^88.7; e^80 may still be summed.
    alpha = jnp.exp(jnp.minimum(log_alpha, 80))
    digamma = jax.scipy.special.digamma
    return (shares * (digamma(alpha.sum()) - digamma(alpha))).sum()


def cumulative_link(logits: Float[Array, " k"], target: Integer[Array, ""]) -> Scalar:
    """Computes -log P(y = target) in nats, for ordered classes 0..k and P(y > i) = σ(logit_i).

    The logits must decrease; gaps under 1e-6 count as 1e-6 (McCullagh 1980, proportional odds).

    Example:
      >>> logits = jnp.array([1.0, -1.0])  # P(y > 0) = 0.731, P(y > 1) = 0.269
      >>> print(f"{jnp.exp(-cumulative_link(logits, jnp.array(1))):.3f}")
      0.462
    """
    # P(y > -1) = 1 and P(y > k) = 0 as finite logits, whose gradients are 0 and not NaN.
    ends = jnp.full(1, 1e9, logits.dtype)
    bounds = jnp.concatenate([ends, logits, -ends])
    a, b = bounds[target], bounds[target + 1]
    # P(y = target) = σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), which does not cancel.
    gap = -jnp.expm1(-jnp.maximum(a - b, 1e-6))
    return jax.nn.softplus(-a) + jax.nn.softplus(b) - jnp.log(gap)


def coral(logits: Float[Array, " k"], target: Integer[Array, ""]) -> Scalar:
    """Computes the sum over i of the cross-entropy, in nats, of σ(logit_i) against [target > i].

    Source: Cao et al., Pattern Recognition Letters 2020 (arXiv:1901.07884), equation 4.

    Example:
      >>> print(f"{coral(jnp.zeros(3), jnp.array(2)):.3f}")  # 3 ln 2
      2.079
    """
    # CORAL's K - 1 binary problems: is the class above k?
    over = (target > jnp.arange(logits.shape[0])).astype(logits.dtype)
    return optax.losses.sigmoid_binary_cross_entropy(logits, over).sum()


def squared_error(prediction: Scalar, target: Num[Array, ""]) -> Scalar:
    """Computes (prediction - target)².

    Example:
      >>> float(squared_error(jnp.array(1.0), jnp.array(3.0)))
      4.0
    """
    return optax.losses.squared_error(prediction, target.astype(prediction.dtype))


def absolute_error(prediction: Scalar, target: Num[Array, ""]) -> Scalar:
    """Computes |prediction - target|; its gradient is 0 at equality.

    Example:
      >>> float(absolute_error(jnp.array(1.0), jnp.array(3.0)))
      2.0
    """
    return jnp.abs(prediction - target)


def huber(prediction: Scalar, target: Num[Array, ""], delta: float = 1.0) -> Scalar:
    """Computes ½ e² for an error |e| ≤ delta, and delta (|e| - ½ delta) beyond (Huber 1964).

    A regression head passes standardized values, so `delta` is in units of the head's `scale`.

    Example:
      >>> float(huber(jnp.array(1.0), jnp.array(3.0)))
      1.5
    """
    return optax.losses.huber_loss(prediction, target.astype(prediction.dtype), delta=delta)
