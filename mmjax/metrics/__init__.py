"""Metrics: statistics of single examples, computed on the device, and formulas on the host.

A head's `statistics` come in two forms. Counts are summed on the device over examples, batches and
devices. A `PerExample` is kept for every example: an evaluation brings its values to the host,
where formulas work in float64, so that no sum of squares cancels and no matrix of classes is
needed.

A metric is one function (prediction [n ...], target [n ...]) -> float of the labeled examples, in
NumPy, that declares which direction is better. A head computes its `extra_metrics` in addition to
its own; see `mmjax.metrics.direction`. A metric of zero examples is NaN.

Example:
  >>> import functools
  >>> from mmjax import metrics
  >>> from mmjax.heads import Classification
  >>> top_5 = functools.partial(metrics.top_k_accuracy, k=5)
  >>> head = Classification(100, extra_metrics={"auroc": metrics.auroc, "top_5": top_5})
"""

from mmjax.metrics.agreement import (
    balanced_accuracy,
    cohen_kappa,
    dice,
    matthews_correlation,
    quadratic_kappa,
    rank_error,
)
from mmjax.metrics.calibration import (
    adaptive_calibration_error,
    brier_score,
    calibration_error,
    classwise_calibration_error,
    compute_calibration_curve,
    negative_log_likelihood,
)
from mmjax.metrics.class_counts import (
    accuracy,
    count_per_class,
    f1,
    macro_f1,
    make_class_report,
    mean_from_sum,
    mean_iou,
)
from mmjax.metrics.direction import Metric, higher_is_better, lower_is_better
from mmjax.metrics.errors import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_pinball_loss,
    pearson,
    r2,
    root_mean_squared_error,
    spearman,
)
from mmjax.metrics.ranking import auroc, average_precision, top_k_accuracy
from mmjax.metrics.selective import (
    compute_risk_coverage,
    excess_risk_coverage_area,
    risk_coverage_area,
)
from mmjax.metrics.spans import span_f1
from mmjax.metrics.statistics import (
    PerExample,
    Statistics,
    count_confusions,
    count_hits,
    record_choice,
    sum_depth_errors,
)
from mmjax.metrics.temperature import fit_temperature
from mmjax.metrics.thresholds import tune_thresholds, tuned_macro_f1

__all__ = [
    "Metric",
    "PerExample",
    "Statistics",
    "accuracy",
    "adaptive_calibration_error",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier_score",
    "calibration_error",
    "classwise_calibration_error",
    "cohen_kappa",
    "compute_calibration_curve",
    "compute_risk_coverage",
    "count_confusions",
    "count_hits",
    "count_per_class",
    "dice",
    "excess_risk_coverage_area",
    "f1",
    "fit_temperature",
    "higher_is_better",
    "lower_is_better",
    "macro_f1",
    "make_class_report",
    "matthews_correlation",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_from_sum",
    "mean_iou",
    "mean_pinball_loss",
    "negative_log_likelihood",
    "pearson",
    "quadratic_kappa",
    "r2",
    "rank_error",
    "record_choice",
    "risk_coverage_area",
    "root_mean_squared_error",
    "span_f1",
    "spearman",
    "sum_depth_errors",
    "top_k_accuracy",
    "tune_thresholds",
    "tuned_macro_f1",
]
