"""Lists the figures of a report with their titles and captions."""

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure

from mmjax.report import diagrams, figures, training_curves
from mmjax.report.study_results import StudyRecord


class FigureText(NamedTuple):
    """File name, title and caption of a figure."""

    name: str
    title: str
    note: str


_Plot = Callable[[StudyRecord], Figure | None]

_BAND_NOTE = "Lines: means over the seeds; bands: 95% intervals, cut at the bounds of the metric."
FIGURES: tuple[tuple[_Plot, FigureText], ...] = (
    (
        figures.plot_scores,
        FigureText(
            "scores",
            "The primary metric of every arm",
            "Means and 95% intervals over the seeds. Filled: the best, and all that it is not "
            "significantly better than. Diamond and dashed line: the baseline.",
        ),
    ),
    (
        diagrams.plot_critical_difference,
        FigureText(
            "critical_difference",
            "Mean ranks on the primary metric",
            "The mean ranks of the first table. Bars join arms whose ranks do not differ "
            "significantly (Nemenyi, 5%).",
        ),
    ),
    (
        figures.plot_delta_m,
        FigureText(
            "delta_m",
            "Gain over the single-task arms",
            "Δm: mean over the tasks of the relative gain; means and 95% intervals over the "
            "seeds. Filled: the best, and all that it is not significantly better than.",
        ),
    ),
    (
        training_curves.plot_learning_curves,
        FigureText(
            "curves", "Learning curves", f"The primary metric on the validation split. {_BAND_NOTE}"
        ),
    ),
    (
        diagrams.plot_task_front,
        FigureText(
            "front_of_tasks",
            "One task against another",
            "Test means and 95% intervals. The line is the Pareto front of the means.",
        ),
    ),
    (
        diagrams.plot_cost_front,
        FigureText(
            "front_of_cost",
            "Quality against cost",
            "Test means and 95% intervals. The line is the Pareto front of the means.",
        ),
    ),
    (
        training_curves.plot_task_weights,
        FigureText(
            "weights",
            "The tasks' weights over training",
            f"{_BAND_NOTE} Arms whose weights never change are left out.",
        ),
    ),
    (
        training_curves.plot_conflicts,
        FigureText("conflicts", "Conflicts between the tasks' gradients over training", _BAND_NOTE),
    ),
)
