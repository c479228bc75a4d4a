"""Reports of many arms: the best and the baselines in print, all of them with filters in HTML."""

import html

import pytest

from mmjax.report import html_page, render, study_files, study_results, tables
from mmjax.report.table_cells import Cell
from mmjax.report.tables import Table
from tests.report import browser, synthetic

LIMIT = study_results.MAX_SHOWN_ARMS


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """8 × 8 arms and 4 baselines; the first arm, which the others are tested against, is poor."""
    names = [f"choice{i}" for i in range(8)]
    directory = synthetic.write_study(
        tmp_path_factory.mktemp("many"),
        fusions=["mgda", *names[1:]],  # the label that lowers the skill most
        balancers=names,
        seeds=(0, 1),
        failed=(),
        diagnostics=False,
    )
    return study_files.read_study(directory)


def test_a_long_table_is_cut_to_its_best_rows_the_baseline_and_the_single_arms(record):
    table = tables.make_arms_table(record)
    short = render.shorten_table(table)
    frame = record.frame[(record.frame.split == "test") & (record.frame.metric == record.metric)]
    means = frame.groupby("arm").value.mean()
    grid = [arm for arm, plan in record.arms.items() if plan.role == "arm"]
    best = means[grid].sort_values(ascending=False).index[:LIMIT]
    assert record.baseline not in best
    shown = [",".join(cell.text for cell in row[:2]) for row in short.rows]
    assert shown[:LIMIT] == [",".join(record.arms[arm].labels.values()) for arm in best]
    assert shown[LIMIT] == ",".join(record.arms[record.baseline].labels.values())
    assert len(shown) == LIMIT + 1 + 4 and short.rule == LIMIT + 1
    assert short.note.startswith("The best 40 of 64 rows; all of them are in tables/arms.csv")
    assert render.shorten_table(short._replace(rows=short.rows[:LIMIT])).rows == short.rows[:LIMIT]


def test_figures_show_the_best_arms_and_the_baselines(record):
    shown = study_results.select_shown_arms(record, record.arms)
    best = set(study_results.sort_best_first(record)[:LIMIT])
    singles = {arm for arm, plan in record.arms.items() if plan.role != "arm"}
    assert set(shown) == best | singles | {record.baseline}
    assert shown == [arm for arm in record.arms if arm in set(shown)]  # in the study's order
    assert study_results.select_shown_arms(record, shown[:LIMIT]) == shown[:LIMIT]


def make_long_table():
    """100 rows of two labels and a number; a label looks like markup."""
    rows = []
    for i in range(100):
        label = ("<b>sum</b>", "gated")[i % 2]
        rate = f"0.{i % 5}"
        rows.append([Cell(label, label), Cell(rate, rate), Cell(f"{i}", float(i))])
    return Table("arms", "Arms", ["fusion", "rate", "score ↑"], rows, 2)


def test_only_long_tables_have_filters():
    table = make_long_table()
    assert 'data-filters="2" data-few="40"' in render.render_html(table)
    assert "data-filters" not in render.render_html(table._replace(rows=table.rows[:LIMIT]))


VISIBLE = "[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
SET = """
(() => { const control = document.querySelectorAll(".filters select, .filters input")[%d];
  control.value = %r; control.dispatchEvent(new Event("input")); })()
"""


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")
def test_filters_facets_and_the_limit_select_rows_also_after_sorting(tmp_path):
    page = html_page.make_page("many", [render.render_html(make_long_table())])
    (tmp_path / "page.html").write_text(page)
    with browser.open_page(tmp_path / "page.html", tmp_path / "profile") as opened:

        def read():
            column = "row.cells[2].dataset.value"
            return [int(float(x)) for x in opened.evaluate(f"{VISIBLE}.map((row) => {column})")]

        assert read() == list(range(40))
        assert opened.evaluate("document.querySelector('output').textContent") == "40 of 100 rows"
        opened.evaluate(SET % (1, "<b>sum</b>"))
        assert read() == list(range(0, 80, 2))
        opened.evaluate(SET % (2, "0.3"))
        assert read() == list(range(8, 100, 10))
        opened.evaluate(SET % (0, "98 SUM"))
        assert read() == [98]
        for control in (0, 1, 2):
            opened.evaluate(SET % (control, ""))
        for _ in range(2):
            opened.evaluate("document.querySelectorAll('th button')[2].click()")
        assert read() == list(range(99, 59, -1))
        opened.evaluate(SET % (3, ""))
        assert len(read()) == 100
        # The labels are text, nowhere markup.
        assert opened.evaluate("document.querySelectorAll('td b, option b').length") == 0
        shown = opened.evaluate("document.querySelectorAll('option')[1].textContent")
        assert html.escape(shown) == "&lt;b&gt;sum&lt;/b&gt;"
