"""Temperature scaling: one number per task that makes probabilities fit the validation split."""

import numpy as np

from mmjax.metrics.calibration import Classes, Logits
from mmjax.metrics.flatten import compute_probabilities, flatten_labeled

TEMPERATURE_RANGE = (0.01, 100.0)


def fit_temperature(prediction: Logits, target: Classes) -> float:
    """Finds the temperature T that minimizes the negative log-likelihood of softmax(logits / T).

    The loss is convex in 1 / T, so that the root of its derivative is the minimum. The result is
    kept between 0.01 and 100: where all examples are right, the likelihood grows for ever as T
    falls. Fit it on the validation split, not on the test split. Guo et al., ICML 2017
    (arXiv:1706.04599), section 4.2.

    Raises:
      ValueError: none of the examples has a label.

    Example:
      >>> logits = np.log([[0.9, 0.1]] * 4)  # sure by 0.9, right by 0.75: T = ln 9 / ln 3
      >>> print(f"{fit_temperature(logits, np.array([0, 0, 0, 1])):.3f}")
      2.000
    """
    logits, classes = flatten_labeled(prediction, target)
    if not len(classes):
        raise ValueError("a temperature needs at least one label.")
    from scipy import optimize

    of_target = logits[np.arange(len(classes)), classes]
    low, high = -np.log(TEMPERATURE_RANGE[1]), -np.log(TEMPERATURE_RANGE[0])

    def compute_slope(log_inverse: float) -> float:
        """Computes d NLL / d β, the mean of E[z] - z of the target under softmax(β z)."""
        p = compute_probabilities(np.exp(log_inverse) * logits)
        return float(((p * logits).sum(axis=-1) - of_target).mean())

    if compute_slope(low) >= 0:
        return TEMPERATURE_RANGE[1]
    if compute_slope(high) <= 0:
        return TEMPERATURE_RANGE[0]
    return float(np.exp(-optimize.brentq(compute_slope, low, high, xtol=1e-10)))
