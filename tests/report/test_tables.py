"""The tables of a study, from numbers chosen so that every cell is known."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from mmjax import heads
from mmjax.report import (
    data_frames,
    diagrams,
    number_format,
    render,
    setup_tables,
    study_files,
    study_results,
    tables,
    write_report,
)
from mmjax.report.tables import Cell, Table
from mmjax.study import results

NAN = float("nan")


def write(directory, tests, *, metric="a/error", tasks=("a",), seeds=(0, 1, 2), **plan):
    """A study of {arm: {metric: a value per seed}}; an arm "single_task=T" has that role."""
    directions = {"a/error": "min", "a/accuracy": "max", "b/accuracy": "max"}
    arms = {}
    for name in tests:
        role, equals, of = name.partition("=")
        single = bool(equals)
        labels = {} if single else {"x": name}
        role, of = (role, of) if single else ("arm", None)
        arms[name] = {"labels": labels, "role": role, "of": of, "changes": {}}
        (directory / "arms" / name).mkdir(parents=True)
    rows = [
        (arm, seed, "test", 10, m, value, arms[arm]["labels"].get("x", ""))
        for arm, metrics in tests.items()
        for m, values in metrics.items()
        for seed, value in zip(seeds, values, strict=False)
    ]
    frame = pd.DataFrame(rows, columns=[*results.RESULT_COLUMNS, "x"])
    frame.to_parquet(directory / results.RESULTS_FILE)
    whole = {
        "name": "tiny",
        "metric": metric,
        "direction": plan.get("direction") or directions[metric],
        "directions": directions,
        "baseline": next(iter(tests)),
        "seeds": list(seeds),
        "axes": ["x"],
        "tasks": list(tasks),
        "arms": arms,
    }
    (directory / "study.json").write_text(json.dumps(whole | plan))
    return directory


def texts(table):
    return [[cell.text + cell.mark for cell in row] for row in table.rows]


def column(table, name, arms=None):
    """The cells of a column, from the top or of the named arms."""
    place = table.header.index(name)
    if arms is None:
        return [row[place] for row in table.rows]
    by_arm = {row[0].text: row for row in table.rows}
    return [by_arm[arm][place] for arm in arms]


BASE, WORSE, BETTER = [2.0, 2.1, 1.9], [3.0, 3.2, 2.9], [1.0, 1.15, 0.95]


def test_what_is_significant_and_best_by_a_metric_of_which_less_is_better(tmp_path):
    """With three seeds p = 1 - |t| / √(2 + t²); t is 31, -58 and 0.25: 0.00104, 0.000297, 0.826.

    Holm multiplies the second by 3, the first by 2, the last by 1.
    """
    found = study_files.read_study(
        write(
            tmp_path,
            {
                "base": {"a/error": BASE},
                "worse": {"a/error": WORSE},
                "better": {"a/error": BETTER},
                "like": {"a/error": [2.3, 2.0, 1.8]},
            },
        )
    )
    names = ["base", "worse", "better", "like"]
    cells = column(tables.make_arms_table(found), "a error ↓", names)
    assert [cell.mark for cell in cells] == ["°", "⁻", "⁺", ""]
    assert [cell.best for cell in cells] == [False, False, True, False]
    assert [cell.value for cell in cells] == pytest.approx([2.0, 9.1 / 3, 3.1 / 3, 6.1 / 3])
    assert cells[0].text == "2.00 ± 0.25"  # t = 4.303, standard error 0.1 / √3
    holm = column(tables.make_tests_table(found), "p (Holm)", names[1:])
    assert [cell.text for cell in holm] == ["0.002", "< 0.001", "0.826"]


def test_the_direction_turns_marks_and_best(tmp_path):
    study = write(
        tmp_path,
        {
            "base": {"a/accuracy": BASE},
            "more": {"a/accuracy": WORSE},
            "less": {"a/accuracy": BETTER},
        },
        metric="a/accuracy",
    )
    cells = column(
        tables.make_arms_table(study_files.read_study(study)),
        "a accuracy ↑",
        ["base", "more", "less"],
    )
    assert [cell.mark for cell in cells] == ["°", "⁺", "⁻"]
    assert [cell.best for cell in cells] == [False, True, False]


def test_a_seed_that_was_not_run_is_left_out_and_told(tmp_path):
    study = write(tmp_path, {"base": {"a/error": BASE}, "short": {"a/error": WORSE[:2]}})
    found = study_files.read_study(study)
    assert column(tables.make_arms_table(found), "a error ↓")[1].value == pytest.approx(3.1)
    assert column(tables.make_tests_table(found), "seeds")[0].text == "2"
    assert texts(tables.make_missing_table(found)) == [
        ["short", "incomplete", "no results of seeds 2"]
    ]


def test_a_metric_undefined_for_a_seed_is_no_mean_over_the_others(tmp_path):
    study = write(tmp_path, {"base": {"a/error": BASE}, "odd": {"a/error": [0.1, NAN, 0.1]}})
    found = study_files.read_study(study)
    cells = column(tables.make_arms_table(found), "a error ↓")
    assert [cell.text for cell in cells] == ["2.00 ± 0.25", "undefined"]
    assert [cell.best for cell in cells] == [True, False]
    assert texts(tables.make_missing_table(found))[0][:2] == ["odd", "left out"]


def test_failed_and_unfinished_arms_are_told(tmp_path):
    study = write(tmp_path, {"base": {"a/error": BASE}, "bad": {}, "late": {}})
    (study / "arms" / "bad" / "error.txt").write_text("NonFiniteError: nan at step 3\nmore\n")
    assert texts(tables.make_missing_table(study_files.read_study(study))) == [
        ["bad", "failed", "NonFiniteError: nan at step 3"],
        ["late", "no results yet", ""],
    ]


def test_without_the_baseline_there_are_no_tests_but_the_rest(tmp_path):
    study = write(tmp_path, {"base": {}, "a": {"a/error": BASE}, "b": {"a/error": WORSE}})
    found = study_files.read_study(study)
    assert tables.make_tests_table(found) is None
    assert [cell.best for cell in column(tables.make_arms_table(found), "a error ↓")] == [
        True,
        False,
    ]
    assert "tests" not in [table.name for table in tables.make_result_tables(found)]


def test_of_one_seed_nothing_is_claimed(tmp_path):
    study = write(tmp_path, {"base": {"a/error": [2.0]}, "b": {"a/error": [1.0]}}, seeds=(7,))
    found = study_files.read_study(study)
    table = tables.make_arms_table(found)
    assert [cell.text for cell in column(table, "a error ↓", ["base", "b"])] == ["2.00", "1.00"]
    assert not any(cell.best for row in table.rows for cell in row)
    assert table.note.startswith("One seed: no intervals, no tests")
    assert tables.make_tests_table(found) is None


def both(a, b):
    return {"a/error": a, "b/accuracy": b}


def test_delta_m_is_against_the_studys_own_single_task_arms(tmp_path):
    """Error 2 → 1 is +50%, accuracy 0.8 → 0.9 is +12.5%: 31.25%."""
    study = write(
        tmp_path,
        {
            "base": both([1.0, 1.0, 1.0], [0.9, 0.9, 0.9]),
            "single_task=a": {"a/error": [2.0, 2.0, 2.0]},
            "single_task=b": {"b/accuracy": [0.8, 0.8, 0.8]},
        },
        tasks=("a", "b"),
    )
    found = study_files.read_study(study)
    assert data_frames.compute_delta_m(found).to_numpy() == pytest.approx(np.full((1, 3), 31.25))
    table = tables.make_arms_table(found)
    assert [cell.value for cell in column(table, "Δm % ↑")] == [pytest.approx(31.25), "", ""]
    assert table.rule == 1
    assert [row[0].text for row in table.rows] == ["base", "only task a", "only task b"]


def test_there_is_no_delta_m_without_every_single_task_arm(tmp_path):
    arms = {"base": both(BASE, BASE), "single_task=a": {"a/error": BASE}}
    found = study_files.read_study(write(tmp_path, arms, tasks=("a", "b")))
    assert data_frames.compute_delta_m(found) is None


def test_a_delta_m_that_makes_no_sense_is_refused_in_the_note(tmp_path):
    arms = {"base": both(BASE, BASE), "single_task=a": {"a/error": [-1.0, 0.0, 1.0]}}
    arms["single_task=b"] = {"b/accuracy": BASE}
    found = study_files.read_study(write(tmp_path, arms, tasks=("a", "b")))
    table = tables.make_arms_table(found)
    assert "Δm % ↑" not in table.header
    assert "Δm needs positive ones" in table.note


def test_fusion_gains_are_over_the_best_single_modality(tmp_path):
    study = write(
        tmp_path,
        {
            "base": {"a/error": BETTER},
            "single_modality=image": {"a/error": WORSE},
            "single_modality=sound": {"a/error": BASE},
        },
    )
    strongest, gains = data_frames.compute_fusion_gains(study_files.read_study(study))
    assert strongest == "single_modality=sound"
    assert gains.difference.tolist() == pytest.approx([-29 / 30])
    assert gains.verdict.tolist() == ["better"]


def test_mean_ranks_are_those_of_the_primary_metric_in_the_table_and_the_figure(tmp_path):
    """Errors 1 to 3; ranks within the seeds: (1, 2, 3), (1.5, 1.5, 3) and (3, 2, 1)."""
    errors = {"base": [1, 1, 3], "b": [2, 1, 2], "c": [3, 3, 1]}
    found = study_files.read_study(
        write(tmp_path, {arm: {"a/error": e} for arm, e in errors.items()})
    )
    expected = {"base": 5.5 / 3, "b": 5.5 / 3, "c": 7 / 3}
    assert data_frames.compute_mean_ranks(found).to_dict() == pytest.approx(expected)
    arms, ranks = data_frames.compute_rank_tests(found)
    assert dict(zip(arms, ranks.mean, strict=True)) == pytest.approx(expected)
    cells = column(tables.make_arms_table(found), "mean rank ↓", errors)
    assert [cell.value for cell in cells] == pytest.approx(list(expected.values()))
    (dots,) = (line for line in diagrams.plot_critical_difference(found).axes[0].lines[:1])
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(expected.values()))


def test_the_best_arm_comes_first_and_those_without_the_metric_last(tmp_path):
    arms = {"base": BASE, "worse": WORSE, "better": BETTER}
    tests = {arm: {"a/error": values} for arm, values in arms.items()}
    tests["none"] = {"b/accuracy": BASE}
    for metric, order in (("min", "better base worse none"), ("max", "worse base better none")):
        study = write(tmp_path / metric, tests, direction=metric, tasks=("a", "b"))
        table = tables.make_arms_table(study_files.read_study(study))
        assert [row[0].text for row in table.rows] == order.split()
        assert table.order == (1, {"min": "ascending", "max": "descending"}[metric])


def test_the_loss_is_a_primary_metric_that_single_tasks_do_not_have(tmp_path):
    tests = {
        "base": both(BASE, BASE) | {"loss": [1.0, 1.1, 0.9]},
        "b": both(BASE, BASE) | {"loss": [0.5, 0.65, 0.35]},
        "single_task=a": {"a/error": BASE, "loss": [0.1, 0.1, 0.1]},
    }
    study = write(tmp_path, tests, metric="loss", direction="min", tasks=("a", "b"))
    found = study_files.read_study(study)
    table = tables.make_arms_table(found)
    assert [row[0].text for row in table.rows] == ["b", "base", "only task a"]
    assert [c.value for c in column(table, "loss ↓")] == [pytest.approx(0.5), pytest.approx(1), ""]
    assert texts(tables.make_tests_table(found))[0][0] == "b"
    write_report.write_report(study)
    assert "Primary metric: loss ↓" in (study / "report.md").read_text()


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [
        ("a/accuracy", 0, 1),
        ("mean/macro_f1", 0, 1),
        ("a/pixel_accuracy", 0, 1),
        ("a/mean_iou", 0, 1),
        ("conflicts", 0, 1),
        ("cosine/a,b", -1, 1),
        ("a/r2", -np.inf, 1),
        ("a/kappa", -np.inf, 1),
        ("a/rmse", 0, np.inf),
        ("a/relative_error", 0, np.inf),
        ("a/loss", -np.inf, np.inf),
        ("weight/a", -np.inf, np.inf),
    ],
)
def test_the_values_that_a_metric_can_have(metric, low, high):
    assert study_results.get_metric_bounds(metric) == (low, high)


def test_every_metric_of_a_head_has_the_bounds_that_it_is_known_to_have():
    """Whatever is bounded on neither side is listed here, so that a new metric is thought of."""
    kinds = [head for head in vars(heads).values() if isinstance(head, type)]
    names = {name for kind in kinds for name in getattr(kind, "metrics", {})}
    assert len(names) > 8
    assert {
        n for n in names if study_results.get_metric_bounds(f"a/{n}") == (-np.inf, np.inf)
    } == set()


def test_a_primary_metric_of_all_tasks_comes_first_and_is_no_tasks_own(tmp_path):
    """The ranks and the front are those of the two tasks."""
    arms = {"base": both([1, 1, 1], [2, 2, 2]), "b": both([3, 3, 3], [3, 3, 3])}
    means = {"base": [9, 9, 9], "b": [7, 7, 7]}
    arms = {name: metrics | {"mean/accuracy": means[name]} for name, metrics in arms.items()}
    directions = {"a/error": "min", "b/accuracy": "max", "mean/accuracy": "max"}
    told = {"metric": "mean/accuracy", "direction": "max", "directions": directions}
    found = study_files.read_study(write(tmp_path, arms, tasks=("a", "b"), **told))
    assert study_results.choose_main_metrics(found) == ["mean/accuracy", "a/error", "b/accuracy"]
    assert study_results.choose_task_metrics(found) == ["a/error", "b/accuracy"]
    figure = diagrams.plot_task_front(found)
    axis = figure.axes[0]
    assert {axis.get_xlabel(), axis.get_ylabel()} == {"a error ↓", "b accuracy ↑"}


def test_a_study_of_one_axis_has_no_grid(tmp_path):
    assert (
        tables.make_grid_table(study_files.read_study(write(tmp_path, {"base": {"a/error": BASE}})))
        is None
    )


def test_the_grid_puts_every_arm_in_its_place(reported):
    found = study_files.read_study(reported)
    table = tables.make_grid_table(found)
    means = data_frames.summarize_arms(found, found.metric)["mean"]
    assert table.header == ["fusion", "equal", "uncertainty", "pcgrad", "mgda"]
    for row in table.rows:
        for balancer, cell in zip(table.header[1:], row[1:], strict=True):
            arm = f"{row[0].text}-{balancer}"
            assert cell == Cell() if arm == "tensor-mgda" else cell.value == means[arm]


def test_costs_are_the_means_in_the_units_of_the_header(reported):
    table = tables.make_arms_table(study_files.read_study(reported))
    (row,) = (row for row in table.rows if [c.text for c in row[:2]] == ["concat", "equal"])
    cells = dict(zip(table.header, (cell.text for cell in row), strict=True))
    assert cells["parameters ↓"] == "145,234"
    assert cells["MFLOP/step ↓"] == "31.0"
    assert cells["peak MiB ↓"] == "40.1"  # 4.2e7 / 2^20


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.94761, 0.00352, "0.9476 ± 0.0035"),
        (-12.345, 1.2, "−12.3 ± 1.2"),
        (1234.5, 250.0, "1,234 ± 250"),
        (0.5, NAN, "0.500"),
        (0.0, NAN, "0.000"),
        (98.76, 0.0, "98.8 ± 0.0"),
    ],
)
def test_digits_are_as_many_as_the_interval_is_worth(mean, half, text):
    assert (
        number_format.format_interval(mean, half, number_format.count_decimals(mean, half)) == text
    )


@pytest.mark.parametrize(("p", "text"), [(0.0004, "< 0.001"), (0.05, "0.050"), (NAN, "no test")])
def test_probabilities(p, text):
    assert number_format.format_p_value(p) == text


TABLE = Table(
    "odd",
    "Odd & ends",
    ["name", "50% ↑"],
    [
        [Cell("a_b|c", "a"), Cell("1.0 ± 0.1", 1.0, best=True, mark="⁺")],
        [Cell("<x> & y", "x"), Cell("−2", -2.0)],
    ],
    1,
    "See {this} ~ that^2 \\ more.",
    1,
)


def test_markdown():
    assert render.render_markdown(TABLE) == (
        "| name | 50% ↑ |\n| :-- | --: |\n| a_b\\|c | **1.0 ± 0.1** ⁺ |\n| &lt;x> & y | −2 |\n"
        "\nSee {this} \\~ that^2 \\\\ more.\n"
    )


def test_latex():
    assert render.render_latex(TABLE).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"name & 50\% $\uparrow$ \\",
        r"\midrule",
        r"a\_b\textbar{}c & \textbf{1.0 $\pm$ 0.1}\rlap{$^{+}$} \\",
        r"\midrule",
        r"$<$x$>$ \& y & $-$2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_html_escapes_and_keeps_what_is_sorted_by():
    shown = render.render_html(TABLE)
    assert "&lt;x&gt; &amp; y" in shown and "<x>" not in shown
    assert '<td class="number" data-value="-2.0">−2</td>' in shown
    assert "<strong>1.0 ± 0.1</strong><sup>+</sup>" in shown
    assert shown.count("<tbody>") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX is installed")
def test_the_latex_report_compiles(reported):
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=reported, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


# What cannot be read.


def test_a_directory_without_a_study_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"does not hold a study: it has no study\.json"):
        study_files.read_study(tmp_path)


def test_a_study_without_results_is_refused(tmp_path):
    write(tmp_path, {"base": {"a/error": BASE}})
    (tmp_path / results.RESULTS_FILE).unlink()
    with pytest.raises(ValueError, match=r"has no results\.parquet; run the study first"):
        study_files.read_study(tmp_path)


def test_a_damaged_study_is_refused(tmp_path):
    write(tmp_path, {"base": {"a/error": BASE}})
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"study\.json is damaged"):
        study_files.read_study(tmp_path)


def test_damage_to_what_was_run_is_told_and_blocks_no_report(tmp_path):
    write(tmp_path, {"base": {"a/error": BASE}})
    (tmp_path / "provenance.json").write_text('[{"time": ')
    (tmp_path / "config.json").write_text("{")
    found = study_files.read_study(tmp_path)
    assert "provenance.json is damaged" in str(texts(setup_tables.make_setup_table(found)))
    (row,) = texts(setup_tables.make_settings_table(found))
    assert row[0] == "config.json" and "damaged" in row[1]


def test_a_baseline_that_is_no_arm_is_refused(tmp_path):
    write(tmp_path, {"base": {"a/error": BASE}}, baseline="other")
    with pytest.raises(ValueError, match=r"baseline 'other', which is not one of its arms"):
        study_files.read_study(tmp_path)


def test_another_table_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / results.RESULTS_FILE)
    with pytest.raises(ValueError, match=r"lacks the columns \['arm', 'seed'"):
        results.load(tmp_path)
