"""The whole report: what it writes, from complete studies and from odd ones."""

import json

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from mmjax.report import (
    data_frames,
    diagrams,
    figures,
    study_files,
    training_curves,
    write_report,
)
from tests.report import synthetic

NAMES = {
    "scores",
    "critical_difference",
    "delta_m",
    "curves",
    "front_of_tasks",
    "front_of_cost",
    "weights",
    "conflicts",
}
RUN = {"setup", "settings", "changes"}  # tables of what was run


def test_everything_is_written(reported):
    files = {path.name for path in reported.iterdir()}
    assert {"report.md", "report.tex", "report.html"} <= files
    drawn = {path.name for path in (reported / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in NAMES for kind in ("png", "pdf")}
    tables = {path.stem for path in (reported / "tables").glob("*.tex")}
    assert tables == {"arms", "grid", "tests", "fusion_gains", "metrics", "gaps", *RUN}


def test_the_three_forms_hold_the_same_tables_and_figures(reported):
    markdown, latex, html = (
        (reported / f"report.{kind}").read_text() for kind in ("md", "tex", "html")
    )
    for name in NAMES:
        assert f"figures/{name}.png" in markdown
        assert f"figures/{name}.pdf" in latex
    assert html.count("<img") == len(NAMES)
    for table in (reported / "tables").glob("*.tex"):
        assert rf"\input{{tables/{table.stem}}}" in latex
        assert f'<table id="{table.stem}"' in html
    assert markdown.count("\n| :--") == html.count("<table")


def test_the_failed_arm_is_in_it_with_its_error(reported):
    for kind in ("md", "html"):
        text = (reported / f"report.{kind}").read_text()
        assert "19 of 20 arms are done (1 failed)" in text
        assert "NonFiniteError: The loss of task" in text


def test_what_was_run_is_in_it(reported):
    for kind in ("md", "html"):
        text = (reported / f"report.{kind}").read_text()
        for words in (
            "Started 2026-01-01. Data: made (1,200 train, 300 validation, 400 test). 20 epochs",
            "made: 1,200 train, 300 validation, 400 test",
            "20 epochs in batches of 12",
            "2026-01-01T12:00:00+00:00  mmjax ablate study.py --workdir runs/study",
            "2026-01-02T12:00:00+00:00  mmjax ablate study.py --workdir runs/study --resume",
            "0123abcd, with uncommitted changes",
            "python 3.11.7, jax 0.10.2",
            "2 × cpu",
        ):
            assert words in text, words
    text = (reported / "report.md").read_text()
    assert text.count("python 3.11.7") == 1  # what a resumption does not change is said once


def test_latex_is_balanced_and_every_row_has_all_columns(reported):
    for path in (reported / "tables").glob("*.tex"):
        text = path.read_text()
        bare = text.replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
        assert text.isascii()


@pytest.mark.slow
def test_figures_are_as_wide_as_a_column_and_have_no_small_print(reported):
    found = study_files.read_study(reported)
    with figures.use_figure_style():
        for function, drawing in write_report.FIGURES:
            figure = function(found)
            FigureCanvasAgg(figure).draw()
            assert figure.get_figwidth() == 3.3
            sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text()]
            assert min(sizes) >= 7, drawing.name
            assert matplotlib.image.imread(reported / "figures" / f"{drawing.name}.png").shape[
                1
            ] == pytest.approx(990, abs=1)


@pytest.mark.slow
def test_nothing_is_cut_off(reported):
    """What is drawn lies within the figure, to a hundredth of an inch."""
    found = study_files.read_study(reported)
    with figures.use_figure_style():
        for function, drawing in write_report.FIGURES:
            figure = function(found)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            box = figure.get_tightbbox(canvas.get_renderer())
            width, height = figure.get_size_inches()
            assert min(box.x0, box.y0) > -0.01, drawing.name
            assert box.x1 < width + 0.01 and box.y1 < height + 0.01, drawing.name


def test_the_same_study_gives_the_same_bytes(reported, tmp_path):
    again = synthetic.write_study(tmp_path / "study")
    figures_of = study_files.read_study(again)
    with figures.use_figure_style():
        figures.save_figure(figures.plot_scores(figures_of), tmp_path / "scores")
    for kind in ("png", "pdf"):
        first = (reported / "figures" / f"scores.{kind}").read_bytes()
        assert (tmp_path / f"scores.{kind}").read_bytes() == first


def brief(tmp_path, **options):
    """A small study's report as Markdown."""
    small = {"fusions": ("concat", "gated"), "balancers": ("equal", "mgda"), "failed": ()}
    directory = synthetic.write_study(tmp_path, **(small | options))
    write_report.write_report(directory)
    return (directory / "report.md").read_text()


@pytest.mark.slow
def test_one_seed(tmp_path):
    text = brief(tmp_path, seeds=(4,))
    assert "One seed: no intervals, no tests" in text
    assert "±" not in text.split("## The primary")[0]
    assert "**" not in text


@pytest.mark.slow
def test_one_arm(tmp_path):
    text = brief(tmp_path, fusions=("concat",), balancers=("equal",), singles=False)
    assert "1 of 1 arms are done" in text
    assert "against" not in text
    assert not (tmp_path / "figures" / "critical_difference.png").exists()


@pytest.mark.slow
def test_a_metric_of_which_less_is_better(tmp_path):
    text = brief(tmp_path, metric="rate/mae")
    assert "Primary metric: rate mae ↓" in text


@pytest.mark.slow
def test_the_baseline_failed(tmp_path):
    text = brief(tmp_path, failed=("concat-equal",))
    assert "against concat-equal" not in text
    assert "| concat-equal | failed |" in text


@pytest.mark.slow
def test_no_diagnostics_no_figure_of_conflicts(tmp_path):
    brief(tmp_path, diagnostics=False)
    assert not (tmp_path / "figures" / "conflicts.png").exists()
    assert (tmp_path / "figures" / "weights.png").exists()


def drop(frame, **what):
    keep = np.ones(len(frame), bool)
    for column, value in what.items():
        keep &= frame[column] == value
    return frame[~keep]


@pytest.mark.slow
def test_a_missing_seed_of_an_arm(tmp_path):
    text = brief(tmp_path, edit=lambda frame: drop(frame, arm="gated-equal", seed=2))
    assert "| gated-equal | incomplete | no results of seeds 2 |" in text
    assert "over 4 seeds: p" in text  # those that all arms have


@pytest.mark.slow
def test_a_metric_that_is_nan(tmp_path):
    def spoil(frame):
        bad = (frame.arm == "gated-mgda") & (frame.metric == "rate/mae") & (frame.seed == 1)
        return frame.assign(value=frame.value.mask(bad & (frame.split == "test")))

    text = brief(tmp_path, edit=spoil)
    assert "| gated-mgda | left out | rate/mae is undefined (NaN)" in text
    assert "| undefined |" in text


@pytest.mark.slow
def test_costs_that_are_not_known(tmp_path):
    def unknown(frame):
        return frame.assign(value=frame.value.mask(frame.metric.isin(["flops", "peak_bytes"])))

    text = brief(tmp_path, edit=unknown)
    assert "MFLOP" not in text and "ms/step" in text


def test_results_of_nothing_yet_are_refused(tmp_path):
    directory = synthetic.write_study(tmp_path, edit=lambda frame: frame[frame.split == "train"])
    with pytest.raises(ValueError, match=r"has no test results yet"):
        write_report.write_report(directory)


@pytest.mark.slow
@pytest.mark.parametrize("axes", [[], ["fusion", "balancer", "third"]])
def test_studies_of_other_numbers_of_axes(tmp_path, axes):
    """Learning curves then share one panel, in which all but a few lines are grey."""
    directory = synthetic.write_study(tmp_path, singles=False)
    found = study_files.read_study(directory)._replace(axes=tuple(axes))
    with figures.use_figure_style():
        curves, weights = (
            training_curves.plot_learning_curves(found),
            training_curves.plot_task_weights(found),
        )
    (panel,) = curves.axes
    grey = [line for line in panel.lines if line.get_color() == figures.GRAY_LINE["color"]]
    assert len(panel.lines) == 15
    assert len(panel.lines) - len(grey) <= figures.MAX_LINE_STYLES
    assert len([axis for axis in weights.axes if axis.get_visible()]) == 15


def test_weights_that_never_change_make_no_figure(tmp_path):
    """Arms of equal weights are left out, and so is a figure of nothing else."""

    def hold(frame):
        still = frame.metric.str.startswith("weight/") & (frame.arm.isin(["concat-equal"]))
        return frame.assign(value=frame.value.mask(still, 1.0))

    small = {"fusions": ("concat",), "balancers": ("equal", "mgda"), "failed": ()}
    directory = synthetic.write_study(tmp_path / "one", **small, edit=hold)
    with figures.use_figure_style():
        (panel,) = [
            a
            for a in training_curves.plot_task_weights(study_files.read_study(directory)).axes
            if a.get_visible()
        ]
    assert "mgda" in panel.get_title()
    small["balancers"] = ("equal",)
    directory = synthetic.write_study(tmp_path / "two", **small, edit=hold)
    assert training_curves.plot_task_weights(study_files.read_study(directory)) is None


def test_intervals_end_where_a_metric_does(tmp_path):
    """Accuracies near 1 with wide intervals: in no figure does anything go beyond 1."""

    def spread(frame):
        near = frame.metric == "digit/accuracy"
        return frame.assign(value=frame.value.mask(near, 0.9 + 0.1 * (frame.seed % 2)))

    directory = synthetic.write_study(tmp_path, edit=spread)
    found = study_files.read_study(directory)
    half = data_frames.summarize_arms(found, found.metric)
    assert (half["mean"] + half["half"]).max() > 1
    with figures.use_figure_style():
        functions = (
            figures.plot_scores,
            training_curves.plot_learning_curves,
            diagrams.plot_cost_front,
        )
        scores, curves, front = (draw(found).axes[0] for draw in functions)
    assert max(np.max(line.get_xdata()) for line in scores.lines) <= 1
    assert np.max([np.max(line.get_ydata()) for line in curves.lines]) <= 1
    for axis in (curves, front):
        paths = [path for found in axis.collections for path in found.get_paths()]
        assert paths and max(path.vertices[:, 1].max() for path in paths) == pytest.approx(1)


def test_the_front_is_what_no_other_point_beats():
    x, y = pd.Series([1, 2, 3, 2, 3.0]), pd.Series([3, 2, 1, 1, 1.0])
    assert diagrams.find_pareto_efficient(x, y).tolist() == [True, True, True, False, True]


def test_the_front_against_a_slow_search():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, (2, 40)).astype(float)
    beaten = [
        any(a >= p and b >= q and (a > p or b > q) for a, b in zip(x, y, strict=True))
        for p, q in zip(x, y, strict=True)
    ]
    assert diagrams.find_pareto_efficient(pd.Series(x), pd.Series(y)).tolist() == [
        not b for b in beaten
    ]


@pytest.mark.slow
def test_a_stored_contribution_of_an_arm_is_in_it(tmp_path):
    brief(tmp_path)
    arm = sorted(path.name for path in (tmp_path / "arms").iterdir())[0]
    estimate = {"mean": 0.25, "half": 0.01, "low": 0.2, "high": 0.3, "seeds": [0.25]}
    measures = {"shapley": {"a": estimate}, "intershap": {"": estimate | {"mean": None}}}
    folder = tmp_path / "arms" / arm / "contribution"
    folder.mkdir()
    stored = {"metrics": {"digit/accuracy": measures}}
    (folder / "contribution.json").write_text(json.dumps(stored))
    write_report.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "## Contributions of the modalities to digit/accuracy" in text
    assert "| 0.250 ± 0.010 | undefined |" in text
